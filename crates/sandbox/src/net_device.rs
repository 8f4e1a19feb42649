//! `linux.netDevices`: moves devices of the runtime's network namespace into the container's, with their permanent
//! addresses, and sets them up.
//!
//! The parent does it: it has the privilege over both namespaces. A failed create gives them back, with their names and
//! addresses: it is to leave everything as it was. After that nothing is undone, "the runtime MUST NOT attempt to move
//! the interface out of the namespace before deletion": the kernel gives a physical device back when the namespace goes, and
//! a virtual one goes with it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use oci_spec::runtime::Linux;

use crate::error::{CallContext, Context};
use crate::sys::netlink::{Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, Route, attributes, push_attribute, word};
use crate::{Error, Result};

const IFA_F_NODAD: u32 = 0x02;
const IFA_F_HOMEADDRESS: u32 = 0x10;
const IFA_F_PERMANENT: u32 = 0x80;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFLA_NET_NS_FD: u16 = 28;
/// `IFF_UP`, in the width of the message.
const IFF_UP: u32 = 1;
/// `struct ifinfomsg` and `struct ifaddrmsg`.
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;

/// A device to move.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetDevice {
    /// Its name in the runtime's namespace.
    pub host_name: String,
    /// Its name in the container's: perhaps with a `%d`, for which the kernel finds a number.
    pub name: String,
}

/// The devices of the configuration, in a fixed order.
pub fn devices(linux: &Linux) -> Vec<NetDevice> {
    let devices = linux.net_devices().iter().flatten();
    let mut devices: Vec<_> = devices
        .map(|(host_name, device)| NetDevice {
            host_name: host_name.clone(),
            name: device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| host_name.clone()),
        })
        .collect();
    devices.sort_unstable();
    devices
}

/// Devices that were moved, and the way back.
#[derive(Debug)]
pub struct Moved {
    host: Route,
    /// Also what keeps the namespace, should its last process have ended.
    inside: Route,
    own: File,
    devices: Vec<MovedDevice>,
}

#[derive(Debug)]
struct MovedDevice {
    host_name: String,
    /// Its index in the container's namespace.
    index: u32,
    /// The requests that make its addresses again, with the index left open.
    addresses: Vec<Vec<u8>>,
    was_up: bool,
}

/// Moves the devices to the network namespace of the process `init`, an unreaped child. Either all are moved or none: a
/// virtual device does not survive a container that fails.
///
/// # Errors
/// No such device, a name that is taken, what the kernel refuses to move.
pub fn move_all(devices: &[NetDevice], init: Pid) -> Result<Moved> {
    let path = format!("/proc/{init}/ns/net");
    let namespace = File::open(&path).call(|| format!("open({path:?})"))?;
    let path = "/proc/self/ns/net";
    let own = File::open(path).call(|| format!("open({path:?})"))?;
    let inside = open_inside(namespace.as_fd(), own.as_fd())?;
    let host = Route::open().call(|| "socket(NETLINK_ROUTE)")?;
    let mut moved = Moved { host, inside, own, devices: Vec::with_capacity(devices.len()) };
    let during = |device: &NetDevice| format!("linux.netDevices: {:?} as {:?}", device.host_name, device.name);
    let links = devices.iter().map(|device| {
        let link = find(&moved.host, &device.host_name)?;
        let link = link.ok_or_else(|| Error::Refused("no such network device".into()));
        match link {
            Ok(_) if !device.name.contains("%d") && find(&moved.inside, &device.name)?.is_some() => {
                Err(Error::Refused("the container has a network device of that name".into()))
            }
            link => link,
        }
        .during(|| during(device))
    });
    let links: Vec<Link> = links.collect::<Result<_>>()?;
    for (device, link) in devices.iter().zip(links) {
        if let Err(error) = moved.take(device, link, namespace.as_fd()).during(|| during(device)) {
            moved.give_back();
            return Err(error);
        }
    }
    Ok(moved)
}

impl Moved {
    fn take(&mut self, device: &NetDevice, link: Link, namespace: BorrowedFd<'_>) -> Result<()> {
        // The kernel drops the addresses of a device that moves.
        let addresses: Vec<Vec<u8>> = dump(&self.host, libc::RTM_GETADDR, ADDRESS_BYTES)
            .call(|| "RTM_GETADDR")?
            .iter()
            .filter_map(|message| address_to_keep(&message.body, link.index))
            .collect();
        let before = if device.name.contains("%d") { links(&self.inside)? } else { Vec::new() };
        push(&self.host, link.index, namespace, &device.name)
            .call(|| format!("RTM_NEWLINK({}, IFLA_NET_NS_FD, {:?})", device.host_name, device.name))?;

        // It may have another index there.
        let index = if device.name.contains("%d") {
            links(&self.inside)?.into_iter().find(|index| !before.contains(index))
        } else {
            find(&self.inside, &device.name)?.map(|link| link.index)
        };
        let index = index.ok_or_else(|| Error::Refused("it has not arrived in the container".into()))?;
        let moved = MovedDevice { host_name: device.host_name.clone(), index, addresses, was_up: link.is_up };
        let ready = moved.set_up(&self.inside, index, true);
        self.devices.push(moved);
        ready
    }

    /// Undoes it, after the failure of what was to come. What refuses to come back cannot be helped: the failure is what is
    /// reported.
    pub fn give_back(self) {
        for device in self.devices.iter().rev() {
            let _reported_is_the_failure = push(&self.inside, device.index, self.own.as_fd(), &device.host_name)
                .call(|| "RTM_NEWLINK")
                .and_then(|()| find(&self.host, &device.host_name))
                .and_then(|link| link.map_or(Ok(()), |link| device.set_up(&self.host, link.index, device.was_up)));
        }
    }
}

impl MovedDevice {
    /// Gives the device, which is `index` there, its addresses, and sets it up.
    fn set_up(&self, route: &Route, index: u32, up: bool) -> Result<()> {
        for address in &self.addresses {
            let mut body = address.clone();
            body[4..8].copy_from_slice(&index.to_ne_bytes());
            route.ask(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body).call(|| "RTM_NEWADDR")?;
        }
        if up {
            route.ask(libc::RTM_NEWLINK, 0, &link_message(index, IFF_UP, IFF_UP)).call(|| "RTM_NEWLINK(IFF_UP)")?;
        }
        Ok(())
    }
}

/// Moves a device of the namespace of `route` to another, under a name.
fn push(route: &Route, index: u32, namespace: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    let mut body = link_message(index, 0, 0);
    push_attribute(&mut body, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    push_attribute(&mut body, libc::IFLA_IFNAME, &c_string(name));
    route.ask(libc::RTM_NEWLINK, 0, &body).map(drop)
}

/// A socket of another network namespace. The caller is there for a moment: it has one thread, and comes back.
fn open_inside(namespace: BorrowedFd<'_>, own: BorrowedFd<'_>) -> Result<Route> {
    setns(namespace, CloneFlags::CLONE_NEWNET).call(|| "setns(CLONE_NEWNET)")?;
    let opened = Route::open().call(|| "socket(NETLINK_ROUTE)");
    setns(own, CloneFlags::CLONE_NEWNET)
        .call(|| "setns(CLONE_NEWNET)")
        .during(|| "return from the container's network")?;
    opened
}

/// A device as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    index: u32,
    is_up: bool,
}

/// The device with this name.
fn find(route: &Route, name: &str) -> Result<Option<Link>> {
    let mut body = link_message(0, 0, 0);
    push_attribute(&mut body, libc::IFLA_IFNAME, &c_string(name));
    match route.ask(libc::RTM_GETLINK, 0, &body) {
        Ok(answers) => Ok(answers
            .iter()
            .find_map(|link| Some(Link { index: word(&link.body, 4)?, is_up: word(&link.body, 8)? & IFF_UP != 0 }))),
        Err(Errno::ENODEV) => Ok(None),
        Err(errno) => Err(Error::call(format!("RTM_GETLINK({name:?})"), errno)),
    }
}

/// The indices of all devices.
fn links(route: &Route) -> Result<Vec<u32>> {
    let links = dump(route, libc::RTM_GETLINK, LINK_BYTES).call(|| "RTM_GETLINK")?;
    Ok(links.iter().filter_map(|link| word(&link.body, 4)).collect())
}

fn dump(route: &Route, kind: u16, header_bytes: usize) -> nix::Result<Vec<Message>> {
    loop {
        // EINTR: the table changed while it was read.
        match route.ask(kind, NLM_F_DUMP, &vec![0; header_bytes]) {
            Err(Errno::EINTR) => {}
            answer => return answer,
        }
    }
}

/// `struct ifinfomsg`: family, pad, type, index, flags, mask of flags to change.
fn link_message(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

fn c_string(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

/// The request that makes an address again which the kernel has described, if it is one of device `index`, permanent and of
/// global scope. `struct ifaddrmsg`: family, prefix length, flags, scope, index. What belongs to the old name or state (the
/// label, whether it was secondary, tentative or found to be another's) does not move.
fn address_to_keep(described: &[u8], index: u32) -> Option<Vec<u8>> {
    let [family, prefix, short_flags, scope] = *described.first_chunk()?;
    let wide_flags = attributes(described, ADDRESS_BYTES).find(|(kind, _)| *kind == IFA_FLAGS);
    let flags = wide_flags.and_then(|(_, value)| word(value, 0)).unwrap_or(u32::from(short_flags));
    if word(described, 4)? != index || scope != libc::RT_SCOPE_UNIVERSE || flags & IFA_F_PERMANENT == 0 {
        return None;
    }
    let flags = flags & (IFA_F_NODAD | IFA_F_HOMEADDRESS | IFA_F_PERMANENT | IFA_F_NOPREFIXROUTE);
    let mut body = vec![family, prefix, 0, scope, 0, 0, 0, 0];
    for (kind, value) in attributes(described, ADDRESS_BYTES) {
        if matches!(kind, libc::IFA_ADDRESS | libc::IFA_LOCAL | libc::IFA_BROADCAST | IFA_RT_PRIORITY) {
            push_attribute(&mut body, kind, value);
        }
    }
    push_attribute(&mut body, IFA_FLAGS, &flags.to_ne_bytes());
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_name() {
        let route = Route::open().unwrap();
        let lo = find(&route, "lo").unwrap().unwrap();
        assert!(links(&route).unwrap().contains(&lo.index));
        assert_eq!(find(&route, "no-such-device").unwrap(), None);
    }

    #[test]
    fn permanent_addresses_of_global_scope_are_kept() {
        let described = |flags: u32, scope: u8, index: u32| {
            let mut body = vec![2, 24, 0x80, scope];
            body.extend(index.to_ne_bytes());
            push_attribute(&mut body, libc::IFA_ADDRESS, &[10, 0, 0, 1]);
            push_attribute(&mut body, libc::IFA_LOCAL, &[10, 0, 0, 1]);
            push_attribute(&mut body, libc::IFA_LABEL, b"eth0\0");
            push_attribute(&mut body, IFA_FLAGS, &flags.to_ne_bytes());
            body
        };
        // Secondary (1) and tentative (0x40) are for the kernel to find out anew.
        let kept = address_to_keep(&described(0x80 | 0x41 | 0x200, 0, 7), 7).unwrap();
        assert_eq!(kept[..4], [2, 24, 0, 0]);
        let attributes: Vec<_> = attributes(&kept, ADDRESS_BYTES).collect();
        let address = [10, 0, 0, 1];
        let flags = 0x280_u32.to_ne_bytes();
        assert_eq!(attributes, [(1, address.as_slice()), (2, &address), (8, &flags)]);
        assert_eq!(address_to_keep(&described(0x80, 0, 8), 7), None, "another device's");
        assert_eq!(address_to_keep(&described(0x80, 253, 7), 7), None, "of the link");
        assert_eq!(address_to_keep(&described(0, 0, 7), 7), None, "from a router or a DHCP server, for a while");
        assert_eq!(address_to_keep(&[2, 24], 7), None);
    }

    #[test]
    fn a_device_keeps_its_name_unless_given_another() {
        let linux: Linux =
            serde_json::from_str(r#"{"netDevices": {"b": {"name": "eth0"}, "a": {}, "c": {"name": ""}}}"#).unwrap();
        let names = devices(&linux);
        let names: Vec<_> = names.iter().map(|device| (device.host_name.as_str(), device.name.as_str())).collect();
        assert_eq!(names, [("a", "a"), ("b", "eth0"), ("c", "c")]);
    }
}
