//! Messages between processes: whole, in order, and with descriptors (`SOCK_SEQPACKET`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

/// The most descriptors that one message can have (`SCM_MAX_FD`, unix(7)).
pub(crate) const MOST_DESCRIPTORS: usize = 253;

/// Whether a call may wait: for room, or for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    DoNotWait,
}

impl Patience {
    fn flags(self) -> MsgFlags {
        match self {
            Self::Wait => MsgFlags::empty(),
            Self::DoNotWait => MsgFlags::MSG_DONTWAIT,
        }
    }
}

/// Two connected sockets, not for programs that are executed.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends a message, which is not empty, with copies of `descriptors`.
///
/// # Errors
/// `WouldBlock` where there is no room and it is not to wait; `EMSGSIZE` where the message is too long for the socket.
pub(crate) fn send(socket: &impl AsFd, message: &[u8], descriptors: &[RawFd], patience: Patience) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | patience.flags();
    loop {
        match sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(message)], control, flags, None) {
            Err(Errno::EINTR) => {}
            sent => return Ok(sent.map(drop)?),
        }
    }
}

/// Receives a message: how much of `buffer` it fills, and its descriptors. `Ok(0)` is the end: the other socket is
/// closed.
///
/// # Errors
/// `WouldBlock` where there is none and it is not to wait; `InvalidData` for one that does not fit.
pub(crate) fn receive(socket: &impl AsFd, buffer: &mut [u8], patience: Patience) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut room = nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | patience.flags();
    let fd = socket.as_fd().as_raw_fd();
    loop {
        let mut pieces = [IoSliceMut::new(buffer)];
        let received = match recvmsg::<()>(fd, &mut pieces, Some(&mut room), flags) {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        let mut descriptors = Vec::new();
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel has just made these descriptors for us alone.
                descriptors.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        return Ok((received.bytes, descriptors));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn messages_keep_their_boundaries_and_bring_their_descriptors() {
        let (one, other) = pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        send(&one, b"first", &[], Patience::DoNotWait).unwrap();
        send(&one, b"second", &[file.as_raw_fd()], Patience::DoNotWait).unwrap();
        let mut buffer = [0; 64];
        let (n, descriptors) = receive(&other, &mut buffer, Patience::DoNotWait).unwrap();
        assert_eq!((&buffer[..n], descriptors.len()), (&b"first"[..], 0));
        let (n, descriptors) = receive(&other, &mut buffer, Patience::DoNotWait).unwrap();
        assert_eq!((&buffer[..n], descriptors.len()), (&b"second"[..], 1));
        let mut copy = std::fs::File::from(descriptors.into_iter().next().unwrap());
        copy.rewind().unwrap();
        let mut content = String::new();
        copy.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
    }

    #[test]
    fn without_a_message_it_does_not_wait_and_the_end_is_told() {
        let (one, other) = pair().unwrap();
        let mut buffer = [0; 64];
        let nothing = receive(&other, &mut buffer, Patience::DoNotWait).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert_eq!(receive(&other, &mut buffer, Patience::Wait).unwrap().0, 0);
        let gone = send(&other, b"x", &[], Patience::Wait).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error_and_the_next_is_whole() {
        let (one, other) = pair().unwrap();
        for message in [&[7; 100][..], b"short"] {
            send(&one, message, &[], Patience::DoNotWait).unwrap();
        }
        let mut buffer = [0; 64];
        let cut = receive(&other, &mut buffer, Patience::DoNotWait).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::InvalidData);
        assert_eq!(receive(&other, &mut buffer, Patience::DoNotWait).unwrap().0, 5);
    }

    #[test]
    fn a_full_socket_is_told_and_not_waited_for() {
        let (one, _other) = pair().unwrap();
        let full = (0..100_000).find_map(|_| send(&one, &[0; 1000], &[], Patience::DoNotWait).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
