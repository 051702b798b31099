//! Messages between processes: whole, in order, and with descriptors (`SOCK_SEQPACKET`, unix(7)).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

/// The most descriptors that one message can have (`SCM_MAX_FD`, unix(7)).
const MOST_DESCRIPTORS: usize = 253;

/// Room for them and the header before them, in words, for the header is aligned like one.
const CONTROL_WORDS: usize = (size_of::<libc::cmsghdr>() + MOST_DESCRIPTORS * size_of::<RawFd>()).div_ceil(8);

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
/// `WouldBlock` where there is none and it is not to wait; `InvalidData` for one that does not fit, or for whose
/// descriptors this process has no room: it is lost.
pub(crate) fn receive(socket: &impl AsFd, buffer: &mut [u8], patience: Patience) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut room = [0_u64; CONTROL_WORDS];
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: zeros are a message header without anything.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = room.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&room) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | patience.flags().bits();
    let received = loop {
        // SAFETY: the header describes live buffers that nobody else uses meanwhile, and the kernel keeps to their lengths.
        match Errno::result(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) }) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    // SAFETY: the kernel has just filled it in.
    let descriptors = unsafe { descriptors_of(&header) };
    if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok((received.unsigned_abs(), descriptors))
}

/// Also those of a message for whose other descriptors there was no room, of which nix says nothing.
///
/// # Safety
/// `header` is as recvmsg(2) has left it, and is asked once.
unsafe fn descriptors_of(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the macros of cmsg(3) stay within what the kernel has filled in; the descriptors behind a header of this
    // type are as many as its length says, and were made for us alone.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(found) = control.as_ref() {
            if (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                #[allow(clippy::unnecessary_cast)] // its type is not the same with every C library
                let length = found.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = std::slice::from_raw_parts(libc::CMSG_DATA(control), length);
                let numbers = data.chunks_exact(size_of::<RawFd>()).filter_map(|fd| fd.try_into().ok());
                descriptors.extend(numbers.map(|fd| OwnedFd::from_raw_fd(RawFd::from_ne_bytes(fd))));
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    descriptors
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

    #[test]
    fn a_message_for_whose_descriptors_there_is_no_room_is_an_error_and_leaves_none_of_them() {
        let (one, other) = pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        // In a process of its own, for the limit is one of processes.
        let pid = crate::sys::process::fork_child(|| {
            let first_free = file.try_clone().unwrap().as_raw_fd().unsigned_abs();
            send(&one, b"x", &[file.as_raw_fd(), file.as_raw_fd()], Patience::DoNotWait).unwrap();
            let room_for_one = u64::from(first_free) + 1;
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, room_for_one, room_for_one)
                .unwrap();
            let lost = receive(&other, &mut [0; 64], Patience::DoNotWait).unwrap_err();
            let next = file.try_clone().unwrap().as_raw_fd().unsigned_abs();
            i32::from(!(lost.kind() == io::ErrorKind::InvalidData && next == first_free))
        });
        let ended = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid.unwrap()), None).unwrap();
        assert!(matches!(ended, nix::sys::wait::WaitStatus::Exited(_, 0)), "{ended:?}");
    }
}
