//! A guest's network cards.

use crate::{Error, Mac, Rate, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The longest name of a network interface in Linux (`IFNAMSIZ` less its end mark).
const MAX_INTERFACE_NAME: usize = 15;

/// The keys of the spelling.
const KEYS: &str =
    "mac, bridge, ip, script, model, type, rate, vifname, backend, mtu, gatewaydev or devid";

/// A network card of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vif {
    /// Its address; `None` asks for a random one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The bridge that its other end joins; `None` is the daemon's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// IP addresses of the guest, for routing and filters in domain 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip: Vec<IpAddr>,
    /// The script that sets its other end up; `None` leaves it to the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// The card that is emulated for fully virtual guests; without meaning for PV guests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The most that the guest may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The name of its other end in domain 0; `None` is `vifDOMAIN.NUMBER`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vifname: Option<String>,
    /// The domain that has the other end, by name or id; `None` is domain 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The largest packet, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The interface of domain 0 that routed packets leave through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gatewaydev: Option<String>,
    /// Its device number; `None` takes the next free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devid: Option<u32>,
}

impl FromStr for Vif {
    type Err = Error;

    /// Reads `mac=00:16:3e:00:00:01,bridge=xenbr0`, with nothing or any of the keys.
    fn from_str(text: &str) -> Result<Self> {
        let mut vif = Self::default();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            let (key, value) = word.split_once('=').ok_or_else(|| {
                Error::new(
                    "vif",
                    format!("`{word}` has no value; expected a `key=value` with one of {KEYS}"),
                )
            })?;
            vif.set(key.trim(), value.trim())?;
        }
        Ok(vif)
    }
}

impl Vif {
    /// Sets one key.
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let number = |what: &str| Error::new("vif", format!("{key}: `{value}` is no {what}"));
        match key {
            "mac" => self.mac = Some(value.parse()?),
            "bridge" => self.bridge = Some(interface_name(key, value)?),
            "ip" => self.ip = addresses(value)?,
            "script" => self.script = Some(value.to_owned()),
            "model" => self.model = Some(value.to_owned()),
            "rate" => self.rate = Some(value.parse()?),
            "vifname" => self.vifname = Some(interface_name(key, value)?),
            "backend" => self.backend = Some(value.to_owned()),
            "gatewaydev" => self.gatewaydev = Some(interface_name(key, value)?),
            "mtu" => {
                let mtu = value.parse().ok().filter(|mtu| *mtu >= 68);
                self.mtu =
                    Some(mtu.ok_or_else(|| number("size of packets; expected 68 to 65535 bytes"))?);
            }
            "devid" => {
                let devid = value.parse().ok().filter(|devid| *devid < 1 << 16);
                self.devid = Some(devid.ok_or_else(|| number("device number"))?);
            }
            "type" if matches!(value, "vif" | "netfront") => {}
            "type" => {
                return Err(Error::new(
                    "vif",
                    format!("type: `{value}` is not supported; PV guests have cards of type vif"),
                ));
            }
            _ => {
                return Err(Error::new(
                    "vif",
                    format!("there is no key `{key}`; expected {KEYS}"),
                ));
            }
        }
        Ok(())
    }
}

/// A name that Linux accepts for a network interface.
fn interface_name(key: &str, name: &str) -> Result<String> {
    let fine = (1..=MAX_INTERFACE_NAME).contains(&name.len())
        && !matches!(name, "." | "..")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    if fine {
        Ok(name.to_owned())
    } else {
        Err(Error::new(
            "vif",
            format!(
                "{key}: `{name}` is no name of a network interface; expected up to {MAX_INTERFACE_NAME} characters, \
                 no spaces, slashes or colons"
            ),
        ))
    }
}

/// IP addresses with spaces between; a mask may follow each, and is left out.
fn addresses(text: &str) -> Result<Vec<IpAddr>> {
    text.split_whitespace()
        .map(|word| {
            let address = word.split_once('/').map_or(word, |(address, _)| address);
            address
                .parse()
                .map_err(|_| Error::new("vif", format!("ip: `{word}` is no IP address")))
        })
        .collect()
}

impl fmt::Display for Vif {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ips: Vec<String> = self.ip.iter().map(ToString::to_string).collect();
        let keys = [
            ("mac", self.mac.map(|mac| mac.to_string())),
            ("bridge", self.bridge.clone()),
            ("ip", Some(ips.join(" ")).filter(|ips| !ips.is_empty())),
            ("script", self.script.clone()),
            ("model", self.model.clone()),
            ("rate", self.rate.map(|rate| rate.to_string())),
            ("vifname", self.vifname.clone()),
            ("backend", self.backend.clone()),
            ("mtu", self.mtu.map(|mtu| mtu.to_string())),
            ("gatewaydev", self.gatewaydev.clone()),
            ("devid", self.devid.map(|devid| devid.to_string())),
        ];
        let words: Vec<String> = keys
            .into_iter()
            .filter_map(|(key, value)| value.map(|value| format!("{key}={value}")))
            .collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys() {
        let text = "mac=00:16:3e:00:00:01,bridge=xenbr0,ip=10.0.0.2 fe80::1,script=vif-bridge,model=e1000,rate=10MB/s,\
                    vifname=web,backend=net,mtu=1400,gatewaydev=eth0,devid=3,type=vif";
        let vif: Vif = text.parse().unwrap();
        assert_eq!(vif.mac, Some(Mac::xen([0, 0, 1])));
        assert_eq!(vif.ip.len(), 2);
        assert_eq!((vif.mtu, vif.devid), (Some(1400), Some(3)));
        assert_eq!(vif.to_string().parse::<Vif>().unwrap(), vif);
    }

    #[test]
    fn nothing_is_a_card_with_defaults() {
        assert_eq!("".parse::<Vif>().unwrap(), Vif::default());
        assert_eq!(Vif::default().to_string(), "");
    }

    #[test]
    fn refusals_say_what_was_expected() {
        let refusal = |text: &str| text.parse::<Vif>().unwrap_err().to_string();
        assert!(refusal("brigde=a").contains("there is no key `brigde`"));
        assert!(refusal("xenbr0").contains("no value"));
        assert!(refusal("bridge=a/b").contains("no name of a network interface"));
        assert!(refusal("ip=300.0.0.1").contains("no IP address"));
        assert!(refusal("mtu=20").contains("68"));
        assert!(refusal("type=ioemu").contains("not supported"));
        assert!(refusal("mac=x").contains("six bytes"));
    }
}
