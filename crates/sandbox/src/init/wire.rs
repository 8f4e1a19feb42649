//! Frames between the parent and the stages: fixed size, no allocation, one socket.
//!
//! The socket is `SOCK_SEQPACKET`: a frame arrives whole or not at all, and closing it is seen by the other side. Both
//! stages hold the same end, one after the other.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::{read, write};

use crate::deadline::{Deadline, Wait};
use crate::error::CallContext;
use crate::step::Step;
use crate::timing::{self, Lap, Process};
use crate::{Error, Result};

/// Every frame has this many bytes; what a kind does not use is zero. Not more than `PIPE_BUF`, so that a write to the
/// exec fifo is atomic.
pub const FRAME_BYTES: usize = 1024;
const HEADER_BYTES: usize = 12;
/// A phase: whose, which, how long, since when.
const LAP_BYTES: usize = 14;

/// What a stage tells the parent, or the exec fifo tells `start`.
#[derive(Debug)]
pub enum FromStage {
    /// Stage 1 has begun, in the runtime's own cgroup: start the scope around it.
    Place,
    /// Stage 1 is in a new user namespace: write its id maps.
    MapIds,
    /// Stage 1 is about to fork into a new time namespace: write its offsets.
    SetClocks,
    /// The mounts are in place, the root is not yet `/`: run the prestart and createRuntime hooks.
    RunHooks,
    /// The network namespace is there: move the devices of the configuration into it.
    MoveDevices,
    /// Set the resource limits and the scheduling of the process: it may not raise them itself in its user namespace.
    SetLimits,
    /// Everything is done but exec.
    Ready,
    /// The seccomp filter is loaded: hand this descriptor of the process to the listener.
    Listener(i32),
    /// `start` was seen.
    Starting,
    /// Something for the log of `--debug`; the stage goes on.
    Warning(String),
    /// What its phases took; the stage goes on.
    Laps(Vec<Lap>),
    /// It failed, with the step, the errno if a call was refused, and one line.
    Failed(Error),
}

/// What the parent tells a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ToStage {
    /// Go on.
    Proceed = 1,
    /// Execute the program now.
    Start = 2,
    /// Wait at the exec fifo.
    AwaitStart = 3,
}

/// The parent's end.
#[derive(Debug)]
pub struct ParentEnd(OwnedFd);

/// The end of the stages. It is spoken with read(2) and write(2): calls that a profile for a program which does anything
/// cannot do without, and a part of what is said is said under the container's filter.
#[derive(Debug)]
pub struct StageEnd(OwnedFd);

/// Makes the two ends.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn pair() -> Result<(ParentEnd, StageEnd)> {
    let (parent, stage) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .call(|| "socketpair(SOCK_SEQPACKET)")?;
    Ok((ParentEnd(parent), StageEnd(stage)))
}

impl ParentEnd {
    /// Waits until there is a frame, or the other end is closed, or `deadline` has passed.
    ///
    /// # Errors
    /// The call that failed.
    pub(super) fn wait(&self, deadline: Deadline) -> Result<Wait> {
        deadline.poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)]).call(|| "poll(wire)")
    }

    /// The next frame; None when all stages are gone or the program was executed.
    ///
    /// # Errors
    /// A frame that no stage sends.
    pub fn receive(&self) -> Result<Option<FromStage>> {
        let mut frame = [0; FRAME_BYTES];
        let count = receive_frame(self.0.as_fd(), &mut frame)?;
        if count == 0 { Ok(None) } else { decode(&frame).map(Some) }
    }

    /// Tells the waiting stage what to do.
    ///
    /// # Errors
    /// `EPIPE` when it is gone.
    pub fn send(&self, message: ToStage) -> Result<()> {
        let mut frame = [0; FRAME_BYTES];
        frame[0] = message as u8;
        send_frame(self.0.as_fd(), &frame)
    }
}

impl AsFd for StageEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl StageEnd {
    /// Tells the parent.
    ///
    /// # Errors
    /// `EPIPE` when the parent is gone.
    pub fn send(&self, message: &FromStage) -> Result<()> {
        let frame = encode(message);
        loop {
            match write(&self.0, &frame) {
                Err(Errno::EINTR) => {}
                written => return written.map(drop).call(|| "write(wire)"),
            }
        }
    }

    /// Waits for the parent's answer.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn receive(&self) -> Result<ToStage> {
        let mut frame = [0; FRAME_BYTES];
        let count = loop {
            match read(&self.0, &mut frame) {
                Err(Errno::EINTR) => {}
                // A reset counts as closed: the parent died with frames unread.
                Err(Errno::ECONNRESET) => break 0,
                count => break count.call(|| "read(wire)")?,
            }
        };
        match (count, frame[0]) {
            (FRAME_BYTES, 1) => Ok(ToStage::Proceed),
            (FRAME_BYTES, 2) => Ok(ToStage::Start),
            (FRAME_BYTES, 3) => Ok(ToStage::AwaitStart),
            (0, _) => Err(Error::Refused("the runtime is gone".into())),
            (count, kind) => Err(Error::Refused(format!("unknown frame {kind} of {count} bytes from the runtime"))),
        }
    }

    /// Sends, and waits until the parent says to go on.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::receive`].
    pub fn ask(&self, message: &FromStage) -> Result<ToStage> {
        self.send(message)?;
        self.receive()
    }

    /// Tells what the phases so far took, if that is measured.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_laps(&self) -> Result<()> {
        timing::take().map_or(Ok(()), |laps| self.send(&FromStage::Laps(laps)))
    }

    /// The descriptor, to keep it when others are closed.
    pub fn fd_mut(&mut self) -> &mut OwnedFd {
        &mut self.0
    }
}

fn send_frame(socket: BorrowedFd<'_>, frame: &[u8; FRAME_BYTES]) -> Result<()> {
    loop {
        match send(socket.as_raw_fd(), frame, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop).call(|| "send(wire)"),
        }
    }
}

/// Zero bytes: the other side is closed. A reset counts as that: the peer died with frames unread.
fn receive_frame(socket: BorrowedFd<'_>, frame: &mut [u8; FRAME_BYTES]) -> Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Ok(0),
            received => return received.call(|| "recv(wire)"),
        }
    }
}

/// Writes one frame to the exec fifo, whole (see [`FRAME_BYTES`]).
///
/// # Errors
/// `EAGAIN` when the fifo is full.
pub fn write_fifo(fifo: BorrowedFd<'_>, message: &FromStage) -> Result<()> {
    write(fifo, &encode(message)).map(drop).call(|| "write(exec fifo)")
}

/// Layout: kind, step, the length of the hint (two bytes), a value (fd or errno), the length of the text, the text, the
/// hint. Numbers are in native order.
fn encode(message: &FromStage) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    let (kind, value) = match message {
        FromStage::MapIds => (1, 0),
        FromStage::RunHooks => (3, 0),
        FromStage::SetLimits => (4, 0),
        FromStage::Ready => (5, 0),
        FromStage::Starting => (6, 0),
        FromStage::SetClocks => (8, 0),
        FromStage::Listener(number) => (10, *number),
        FromStage::MoveDevices => (11, 0),
        FromStage::Place => (2, 0),
        FromStage::Warning(text) => {
            fill(&mut frame, text, None);
            (9, 0)
        }
        FromStage::Laps(laps) => {
            for (room, lap) in frame[HEADER_BYTES..].chunks_exact_mut(LAP_BYTES).zip(laps) {
                (room[0], room[1]) = (lap.process as u8, lap.step as u8);
                room[2..6].copy_from_slice(&lap.took.to_ne_bytes());
                room[6..].copy_from_slice(&lap.begin.to_ne_bytes());
            }
            (12, i32::try_from(laps.len()).unwrap_or(i32::MAX))
        }
        FromStage::Failed(error) => {
            frame[1] = error.step().map_or(u8::MAX, |step| step as u8);
            fill(&mut frame, error, error.hint());
            (7, error.errno().map_or(0, |errno| errno as i32))
        }
    };
    frame[0] = kind;
    frame[4..8].copy_from_slice(&value.to_ne_bytes());
    frame
}

/// Decodes a frame of a stage.
///
/// # Errors
/// A kind that does not exist.
pub fn decode(frame: &[u8; FRAME_BYTES]) -> Result<FromStage> {
    let word = |at: usize| [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]];
    let value = i32::from_ne_bytes(word(4));
    Ok(match frame[0] {
        1 => FromStage::MapIds,
        2 => FromStage::Place,
        3 => FromStage::RunHooks,
        4 => FromStage::SetLimits,
        5 => FromStage::Ready,
        6 => FromStage::Starting,
        7 => {
            let (message, hint) = texts(frame);
            let errno = (value != 0).then(|| Errno::from_raw(value));
            let error = match Step::from_number(frame[1]) {
                Some(step) => Error::Reported { step, errno, message },
                None => Error::Refused(message),
            };
            FromStage::Failed(match hint {
                Some(hint) => Error::Hinted { hint, source: Box::new(error) },
                None => error,
            })
        }
        8 => FromStage::SetClocks,
        9 => FromStage::Warning(texts(frame).0),
        10 => FromStage::Listener(value),
        11 => FromStage::MoveDevices,
        12 => FromStage::Laps(laps(frame, value)),
        kind => return Err(Error::Refused(format!("unknown frame {kind} from the container's init"))),
    })
}

/// `count` phases, as many as there is room for.
fn laps(frame: &[u8; FRAME_BYTES], count: i32) -> Vec<Lap> {
    let rooms = frame[HEADER_BYTES..].as_chunks::<LAP_BYTES>().0;
    let lap = |room: &[u8; LAP_BYTES]| {
        let [process, step, took @ .., _, _, _, _, _, _, _, _] = *room;
        let [.., a, b, c, d, e, f, g, h] = *room;
        let (process, step) = (Process::from_number(process)?, Step::from_number(step)?);
        Some(Lap { process, step, took: u32::from_ne_bytes(took), begin: u64::from_ne_bytes([a, b, c, d, e, f, g, h]) })
    };
    rooms.iter().take(usize::try_from(count).unwrap_or_default()).filter_map(lap).collect()
}

/// Prints `line` as the text of a frame, cut at its end, and as much of the hint as there is room for. Does not allocate:
/// in a container whose memory limit is reached the text still arrives.
fn fill(frame: &mut [u8; FRAME_BYTES], line: &impl std::fmt::Display, hint: Option<&str>) {
    let (header, room) = frame.split_at_mut(HEADER_BYTES);
    let size = room.len();
    let mut rest: &mut [u8] = room;
    // Fails only for want of room, and then what fits has been written.
    let _cut = std::io::Write::write_fmt(&mut rest, format_args!("{line}"));
    header[8..12].copy_from_slice(&u32::try_from(size - rest.len()).unwrap_or_default().to_ne_bytes());
    let hint = hint.unwrap_or_default().as_bytes();
    let hint = &hint[..hint.len().min(rest.len())];
    rest[..hint.len()].copy_from_slice(hint);
    header[2..4].copy_from_slice(&u16::try_from(hint.len()).unwrap_or_default().to_ne_bytes());
}

/// The text of a frame, and its hint if it has one.
fn texts(frame: &[u8; FRAME_BYTES]) -> (String, Option<String>) {
    let (header, room) = frame.split_at(HEADER_BYTES);
    let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(room.len());
    let (text, rest) = room.split_at(length);
    let hint = &rest[..usize::from(u16::from_ne_bytes([header[2], header[3]])).min(rest.len())];
    let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (string(text), (!hint.is_empty()).then(|| string(hint)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Context;

    #[test]
    fn an_error_crosses_the_wire_with_step_errno_and_text() {
        let (parent, stage) = pair().unwrap();
        let error = Err::<(), _>(Errno::EACCES).call(|| "mount(\"/x\")").at(Step::Mount).unwrap_err();
        let text = error.to_string();
        stage.send(&FromStage::Failed(error)).unwrap();
        let Some(FromStage::Failed(received)) = parent.receive().unwrap() else { panic!("not a failure") };
        assert_eq!(received.to_string(), text);
        assert_eq!((received.step(), received.errno()), (Some(Step::Mount), Some(Errno::EACCES)));
    }

    #[test]
    fn a_hint_crosses_the_wire_beside_the_text_as_far_as_there_is_room() {
        let hinted = |text: String, hint: &str| {
            let error = Error::Hinted { hint: hint.to_owned(), source: Box::new(Error::Refused(text)) };
            match decode(&encode(&FromStage::Failed(error))).unwrap() {
                FromStage::Failed(error) => (error.to_string(), error.hint().map(str::to_owned)),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(hinted("no luck".into(), "try again"), ("no luck".into(), Some("try again".into())));
        let text = "x".repeat(FRAME_BYTES - HEADER_BYTES - 3);
        assert_eq!(hinted(text.clone(), "try again"), (text, Some("try".into())));
        assert_eq!(hinted("x".repeat(FRAME_BYTES), "try again").1, None);
    }

    #[test]
    fn phases_cross_the_wire_as_many_as_there_is_room_for() {
        let lap = |number: u8| Lap {
            process: Process::Stage2,
            step: Step::from_number(number % 30).unwrap(),
            begin: u64::MAX - u64::from(number),
            took: u32::MAX - u32::from(number),
        };
        for (count, arrived) in [(0, 0), (3, 3), (100, 72)] {
            let laps: Vec<Lap> = (0..count).map(lap).collect();
            let Ok(FromStage::Laps(received)) = decode(&encode(&FromStage::Laps(laps.clone()))) else {
                panic!("no laps")
            };
            assert_eq!(received, laps[..arrived]);
        }
    }

    #[test]
    fn a_text_longer_than_a_frame_is_cut() {
        let frame = encode(&FromStage::Failed(Error::Refused("é".repeat(FRAME_BYTES))));
        let FromStage::Failed(error) = decode(&frame).unwrap() else { panic!("not a failure") };
        assert!(error.to_string().starts_with("éé") && error.to_string().len() >= FRAME_BYTES - HEADER_BYTES - 1);
    }

    #[test]
    fn answers_arrive_and_a_closed_end_is_seen_by_the_other() {
        let (parent, stage) = pair().unwrap();
        for message in [ToStage::Proceed, ToStage::Start, ToStage::AwaitStart] {
            parent.send(message).unwrap();
            assert_eq!(stage.receive().unwrap(), message);
        }
        stage.send(&FromStage::Listener(77)).unwrap();
        assert!(matches!(parent.receive().unwrap(), Some(FromStage::Listener(77))));
        drop(parent);
        assert_eq!(stage.receive().unwrap_err().to_string(), "the runtime is gone");
        let (parent, stage) = pair().unwrap();
        drop(stage);
        assert!(parent.receive().unwrap().is_none());
    }

    #[test]
    fn any_bytes_decode_to_a_frame_or_an_error() {
        for kind in 0..=u8::MAX {
            let mut frame = [0xff; FRAME_BYTES];
            frame[0] = kind;
            assert_eq!(decode(&frame).is_ok(), (1..=12).contains(&kind));
        }
    }
}
