//! One message of D-Bus: a call of ours, or what comes back.

use super::value::{Value, align, alignment, write_u32};
use crate::{Error, Result};

/// Fixed part of the header, with the length of the fields that follow.
pub(super) const HEADER_BYTES: usize = 16;
/// Longer ones are none of ours: the answers and signals of systemd's manager are a few hundred bytes.
const MAX_BYTES: usize = 1 << 24;

const METHOD_CALL: u8 = 1;
const NO_REPLY_EXPECTED: u8 = 1;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Reply,
    Error,
    Signal,
    /// A call: nobody has a reason to call us.
    Other,
}

/// A call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    /// None on a connection without a bus.
    pub(super) destination: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) arguments: &'a [Value],
    /// Whether the answer is of interest.
    pub(super) answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Expected,
    /// Not even an error comes back.
    None,
}

impl Call<'_> {
    /// The message, with our number `serial`.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Vec::new();
        for argument in self.arguments {
            argument.write(&mut body);
        }
        let signature: String = self.arguments.iter().map(Value::signature).collect();
        let mut fields = vec![(1, Value::Path(self.path.into())), (2, Value::str(self.interface))];
        fields.push((3, Value::str(self.member)));
        fields.extend(self.destination.map(|name| (6, Value::str(name))));
        if !signature.is_empty() {
            fields.push((8, Value::Signature(signature)));
        }
        let field = |(code, value)| Value::Tuple(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let fields = Value::Array("(yv)".into(), fields.into_iter().map(field).collect());

        let flags = if self.answer == Answer::None { NO_REPLY_EXPECTED } else { 0 };
        let mut message = vec![b'l', METHOD_CALL, flags, 1];
        write_u32(&mut message, u32::try_from(body.len()).unwrap_or(u32::MAX));
        write_u32(&mut message, serial);
        fields.write(&mut message);
        align(&mut message, 8);
        message.extend_from_slice(&body);
        message
    }
}

/// A message that was received.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The serial of the call that this answers.
    pub(super) reply_to: Option<u32>,
    pub(super) member: Option<String>,
    pub(super) error_name: Option<String>,
    signature: String,
    body: Vec<u8>,
    order: Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Message {
    /// The bytes of a message of which [`HEADER_BYTES`] are there.
    ///
    /// # Errors
    /// What no peer sends.
    pub(super) fn length(header: &[u8; HEADER_BYTES]) -> Result<usize> {
        let order = order(header[0])?;
        let word = |at: usize| {
            let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            usize::try_from(order.u32(bytes)).unwrap_or(usize::MAX)
        };
        let fields = word(12).checked_next_multiple_of(8);
        fields
            .and_then(|fields| fields.checked_add(word(4))?.checked_add(HEADER_BYTES))
            .filter(|length| *length <= MAX_BYTES)
            .ok_or_else(|| malformed("its length"))
    }

    /// Reads a whole message.
    ///
    /// # Errors
    /// What is malformed.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let order = order(bytes.first().copied().unwrap_or(0))?;
        let mut reader = Reader { bytes, at: 1, order };
        let kind = match reader.byte()? {
            2 => Kind::Reply,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        };
        reader.at = 4;
        let body_bytes = reader.length()?;
        reader.at = 12;
        let end = reader.length()?.checked_add(HEADER_BYTES).ok_or_else(|| malformed("its fields"))?;
        let mut message = Self {
            kind,
            reply_to: None,
            member: None,
            error_name: None,
            signature: String::new(),
            body: Vec::new(),
            order,
        };
        while reader.at < end {
            reader.align(8);
            let code = reader.byte()?;
            match (code, reader.signature()?.as_str()) {
                (3, "s") => message.member = Some(reader.string()?),
                (4, "s") => message.error_name = Some(reader.string()?),
                (5, "u") => message.reply_to = Some(reader.u32()?),
                (8, "g") => message.signature = reader.signature()?,
                (_, "s" | "o") => drop(reader.string()?),
                (_, "u") => drop(reader.u32()?),
                (_, "g") => drop(reader.signature()?),
                (code, other) => return Err(malformed(&format!("field {code} of type {other:?}"))),
            }
        }
        reader.align(8);
        message.body = reader.take(body_bytes)?.to_vec();
        Ok(message)
    }

    /// The strings and object paths among the arguments of simple types, in order: all that is read of answers and
    /// signals.
    ///
    /// # Errors
    /// What is malformed.
    pub(super) fn strings(&self) -> Result<Vec<String>> {
        let mut reader = Reader { bytes: &self.body, at: 0, order: self.order };
        let mut strings = Vec::new();
        for kind in self.signature.bytes() {
            match kind {
                b's' | b'o' => strings.push(reader.string()?),
                b'u' | b'i' | b'b' => drop(reader.u32()?),
                // What follows is not needed.
                _ => break,
            }
        }
        Ok(strings)
    }

    /// What went wrong, in the peer's words.
    pub(super) fn failure(&self) -> String {
        let name = self.error_name.as_deref().unwrap_or("an error without a name");
        match self.strings().ok().and_then(|strings| strings.into_iter().next()) {
            Some(text) => format!("{} ({name})", text.trim_end_matches(['.', '\n'])),
            None => name.to_owned(),
        }
    }
}

fn malformed(what: &str) -> Error {
    Error::Refused(format!("a message of the bus is malformed: {what}"))
}

fn order(byte: u8) -> Result<Order> {
    match byte {
        b'l' => Ok(Order::Little),
        b'B' => Ok(Order::Big),
        _ => Err(malformed("its byte order")),
    }
}

impl Order {
    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    order: Order,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or_else(|| malformed("a length"))?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| malformed("it is cut short"))?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Result<u32> {
        self.align(alignment("u"));
        let bytes = self.take(4)?;
        Ok(self.order.u32([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn length(&mut self) -> Result<usize> {
        self.u32().map(|length| usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn string(&mut self) -> Result<String> {
        let length = self.length()?;
        self.text(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.byte()?;
        self.text(usize::from(length))
    }

    /// Text of `length` bytes and the zero behind it.
    fn text(&mut self, length: usize) -> Result<String> {
        let text = self.take(length)?.to_vec();
        self.byte()?;
        String::from_utf8(text).map_err(|_| malformed("a text that is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &[Value], answer: Answer) -> Vec<u8> {
        let call = Call {
            destination: Some("org.freedesktop.systemd1"),
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "StopUnit",
            arguments,
            answer,
        };
        call.encode(7)
    }

    #[test]
    fn a_call_is_read_back_as_it_was_written() {
        let bytes = call(&[Value::str("x.scope"), Value::str("replace")], Answer::Expected);
        let header = bytes[..HEADER_BYTES].try_into().unwrap();
        assert_eq!(Message::length(&header).unwrap(), bytes.len());
        let message = Message::decode(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_deref()), (Kind::Other, Some("StopUnit")));
        assert_eq!(message.signature, "ss");
        assert_eq!(message.strings().unwrap(), ["x.scope", "replace"]);
        assert_eq!(&bytes[..4], b"l\x01\x00\x01");
        assert_eq!(&call(&[], Answer::None)[..4], b"l\x01\x01\x01");
    }

    /// `JobRemoved(7, "/j/7", "a.scope", "done")` as a big-endian machine sends it.
    fn big_endian_signal() -> Vec<u8> {
        let mut bytes = b"B\x04\x01\x01\0\0\0\x25\0\0\0\x05\0\0\0\x30".to_vec();
        bytes.extend(b"\x03\x01s\0\0\0\0\x0aJobRemoved\0\0\0\0\0\0");
        bytes.extend(b"\x08\x01g\0\x04uoss\0\0\0\0\0\0\0");
        bytes.extend(b"\x05\x01u\0\0\0\0\x09");
        bytes.extend(b"\0\0\0\x07\0\0\0\x04/j/7\0\0\0\0\0\0\0\x07a.scope\0\0\0\0\x04done\0");
        bytes
    }

    #[test]
    fn either_byte_order_is_read() {
        let bytes = big_endian_signal();
        assert_eq!(Message::length(&bytes[..HEADER_BYTES].try_into().unwrap()).unwrap(), bytes.len());
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.kind, Kind::Signal);
        assert_eq!(message.reply_to, Some(9));
        assert_eq!(message.strings().unwrap(), ["/j/7", "a.scope", "done"]);
    }

    #[test]
    fn whatever_is_cut_or_changed_is_an_error_and_never_a_panic() {
        // Under Miri, where each takes long, some.
        let step = if cfg!(miri) { 13 } else { 1 };
        for whole in [big_endian_signal(), call(&[Value::str("x")], Answer::Expected)] {
            for length in (0..whole.len()).step_by(step) {
                assert!(Message::decode(&whole[..length]).is_err(), "{length}");
            }
            for at in (0..whole.len()).step_by(step) {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut changed = whole.clone();
                    changed[at] = value;
                    let _any = Message::length(&changed[..HEADER_BYTES].try_into().unwrap());
                    let _any = Message::decode(&changed).map(|message| message.strings());
                }
            }
        }
    }
}
