//! The kernel's command line.

use serde::{Deserialize, Serialize};

/// What the kernel's command line is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KernelArguments {
    /// The whole command line; the other fields are then not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// The root device, as in `root=/dev/xvda1`, without `root=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The guest's IP address, or several fields of Linux's `ip=` argument, without `ip=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The network's mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netmask: Option<String>,
    /// The address of the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The guest's host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The network interface that the address is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// How the guest's kernel gets its address: `dhcp`, `on`, `off` or another of Linux's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<String>,
    /// The address of the NFS server that has the root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nfs_server: Option<String>,
    /// The root file system's path on the NFS server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nfs_root: Option<String>,
    /// More arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra: Option<String>,
}

impl KernelArguments {
    /// The command line: `cmdline` as it is, or network, root and further arguments in the order in which xm always put them.
    pub fn command_line(&self) -> String {
        if let Some(cmdline) = &self.cmdline {
            return cmdline.clone();
        }
        let mut words = Vec::new();
        if let Some(ip) = self.ip_argument() {
            words.push(format!("ip={ip}"));
        }
        if let Some(root) = &self.root {
            words.push(format!(
                "root={}",
                root.strip_prefix("root=").unwrap_or(root)
            ));
        }
        if let Some(nfs_root) = &self.nfs_root {
            let server = self.nfs_server.as_deref();
            words.push(match server {
                Some(server) => format!("nfsroot={server}:{nfs_root}"),
                None => format!("nfsroot={nfs_root}"),
            });
        }
        words.extend(self.extra.clone().filter(|extra| !extra.is_empty()));
        words.join(" ")
    }

    /// The value of Linux's `ip=`: client, server, gateway, netmask, hostname, device and autoconf, separated by colons
    /// (Documentation/admin-guide/nfs/nfsroot.rst).
    fn ip_argument(&self) -> Option<String> {
        let ip = self.ip.as_deref().unwrap_or("");
        let ip = ip.strip_prefix("ip=").unwrap_or(ip);
        // An address with colons is the whole argument already.
        if ip.contains(':') {
            return Some(ip.to_owned());
        }
        let dhcp = self.dhcp.as_deref().filter(|dhcp| *dhcp != "off");
        if ip.is_empty() && dhcp.is_none() {
            return None;
        }
        let field = |value: &Option<String>| value.clone().unwrap_or_default();
        let fields = [
            ip.to_owned(),
            field(&self.nfs_server),
            field(&self.gateway),
            field(&self.netmask),
            field(&self.hostname),
            field(&self.interface),
            dhcp.unwrap_or("off").to_owned(),
        ];
        let only_dhcp = fields.iter().take(6).all(String::is_empty);
        Some(if only_dhcp {
            dhcp.unwrap_or("off").to_owned()
        } else {
            fields.join(":")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn words_come_in_xm_s_order() {
        let arguments = KernelArguments {
            root: some("/dev/xvda1 ro"),
            extra: some("4 quiet"),
            dhcp: some("dhcp"),
            ..KernelArguments::default()
        };
        assert_eq!(
            arguments.command_line(),
            "ip=dhcp root=/dev/xvda1 ro 4 quiet"
        );
    }

    #[test]
    fn a_static_address_has_all_its_fields() {
        let arguments = KernelArguments {
            ip: some("10.0.0.2"),
            gateway: some("10.0.0.1"),
            netmask: some("255.255.255.0"),
            hostname: some("web"),
            interface: some("eth0"),
            ..KernelArguments::default()
        };
        assert_eq!(
            arguments.command_line(),
            "ip=10.0.0.2::10.0.0.1:255.255.255.0:web:eth0:off"
        );
    }

    #[test]
    fn no_network_option_gives_no_ip_argument() {
        let hostname_only = KernelArguments {
            hostname: some("web"),
            dhcp: some("off"),
            ..KernelArguments::default()
        };
        assert_eq!(hostname_only.command_line(), "");
    }

    #[test]
    fn a_whole_command_line_stands_alone() {
        let arguments = KernelArguments {
            cmdline: some("console=hvc0"),
            root: some("/dev/xvda"),
            ..KernelArguments::default()
        };
        assert_eq!(arguments.command_line(), "console=hvc0");
    }

    #[test]
    fn an_nfs_root_names_its_server() {
        let arguments = KernelArguments {
            root: some("/dev/nfs"),
            nfs_server: some("10.0.0.9"),
            nfs_root: some("/export/web"),
            ..KernelArguments::default()
        };
        assert_eq!(
            arguments.command_line(),
            "root=/dev/nfs nfsroot=10.0.0.9:/export/web"
        );
    }
}
