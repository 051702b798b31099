//! The host name of an address, which std cannot ask for.

use std::ffi::CStr;
use std::net::{IpAddr, SocketAddr};
use std::ptr;

/// Asks the system's resolver (getnameinfo(3)), which may take many seconds. Whoever owns the address can answer what
/// they like. None as well where the name is longer than DNS can have it.
pub(crate) fn host_name(address: IpAddr) -> Option<String> {
    const NAME_BYTES: libc::socklen_t = 256;
    let address = socket2::SockAddr::from(SocketAddr::new(address, 0));
    let mut name = [0; NAME_BYTES as usize];
    // SAFETY: the address lives through the call and is as long as it says; so does `name`, which the call fills with
    // no more than its length and ends with a zero byte. No name of a service is asked for.
    let failure = unsafe {
        let name = name.as_mut_ptr().cast();
        libc::getnameinfo(
            address.as_ptr().cast(),
            address.len(),
            name,
            NAME_BYTES,
            ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if failure != 0 {
        return None;
    }
    CStr::from_bytes_until_nul(&name).ok()?.to_str().ok().map(ToOwned::to_owned)
}
