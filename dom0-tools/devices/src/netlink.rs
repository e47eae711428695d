//! Requests to the kernel's network configuration (`rtnetlink(7)`).

use crate::kernel::LinkChange;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::IpAddr;

/// Bytes of an answer: an acknowledgement repeats the request's header.
const ANSWER_LEN: usize = 8192;

/// Changes the interface with this index.
pub(crate) fn set_link(index: u32, change: &LinkChange) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if change.up {
        message.header.flags |= LinkFlags::Up;
        message.header.change_mask |= LinkFlags::Up;
    }
    if let Some(arp) = change.arp {
        message.header.flags.set(LinkFlags::Noarp, !arp);
        message.header.change_mask |= LinkFlags::Noarp;
    }
    message
        .attributes
        .extend(change.name.clone().map(LinkAttribute::IfName));
    message
        .attributes
        .extend(change.mtu.map(LinkAttribute::Mtu));
    message
        .attributes
        .extend(change.bridge.map(LinkAttribute::Controller));
    request(RouteNetlinkMessage::SetLink(message), 0)
}

/// Adds or replaces the route to one address.
pub(crate) fn add_host_route(index: u32, ip: IpAddr) -> io::Result<()> {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(ip),
        destination_prefix_length: if ip.is_ipv4() { 32 } else { 128 },
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Link,
        kind: RouteType::Unicast,
        ..Default::default()
    };
    message
        .attributes
        .push(RouteAttribute::Destination(RouteAddress::from(ip)));
    message.attributes.push(RouteAttribute::Oif(index));
    request(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// Makes the interface answer for `ip`, which is behind another one.
pub(crate) fn add_neighbour_proxy(index: u32, ip: IpAddr) -> io::Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = index;
    message.header.flags = NeighbourFlags::Proxy;
    message
        .attributes
        .push(NeighbourAttribute::Destination(NeighbourAddress::from(ip)));
    request(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

/// Sends one request and waits for its acknowledgement.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answer = vec![0; ANSWER_LEN];
    let len = socket.recv(&mut answer.as_mut_slice(), 0)?;
    let answer = answer.get(..len).unwrap_or_default();
    let answer =
        NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(io::Error::other(format!(
            "the kernel answers a request with {other:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_refuses_what_does_not_exist() {
        let error = set_link(
            u32::MAX >> 1,
            &LinkChange {
                up: true,
                ..LinkChange::default()
            },
        )
        .unwrap_err();
        // Without the rights it does not come to that.
        assert!(matches!(error.raw_os_error(), Some(19 | 1)), "{error:?}");
    }
}
