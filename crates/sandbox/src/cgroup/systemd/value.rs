//! Values of D-Bus, and how they are written: the part of the specification that systemd's manager is spoken to in.
//!
//! <https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol-marshaling>

/// A value with its type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(String),
    Path(String),
    Signature(String),
    /// The signature of the elements, and the elements: an empty array has a type, too.
    Array(String, Vec<Value>),
    Tuple(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(super) fn str(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    /// `(name, variant)`, as properties are sent.
    pub(super) fn property(name: &str, value: Self) -> Self {
        Self::Tuple(vec![Self::str(name), Self::Variant(Box::new(value))])
    }

    /// The type in the notation of D-Bus: `a(sv)`.
    pub(super) fn signature(&self) -> String {
        let one = match self {
            Self::Bool(_) => "b",
            Self::Byte(_) => "y",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::F64(_) => "d",
            Self::Str(_) => "s",
            Self::Path(_) => "o",
            Self::Signature(_) => "g",
            Self::Variant(_) => "v",
            Self::Array(element, _) => return format!("a{element}"),
            Self::Tuple(fields) => {
                return format!("({})", fields.iter().map(Self::signature).collect::<String>());
            }
        };
        one.to_owned()
    }

    /// Appends the value; `out` begins at a multiple of eight of the message. Little-endian, which every peer reads.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => write_u32(out, u32::from(*value)),
            Self::Byte(value) => out.push(*value),
            Self::I16(value) => put(out, &value.to_le_bytes()),
            Self::U16(value) => put(out, &value.to_le_bytes()),
            Self::I32(value) => put(out, &value.to_le_bytes()),
            Self::U32(value) => write_u32(out, *value),
            Self::I64(value) => put(out, &value.to_le_bytes()),
            Self::U64(value) => put(out, &value.to_le_bytes()),
            Self::F64(value) => put(out, &value.to_bits().to_le_bytes()),
            Self::Str(text) | Self::Path(text) => {
                write_u32(out, length(text.len()));
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Self::Signature(text) => {
                // At most 255 bytes by the specification; ours are a few.
                out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Self::Array(element, elements) => {
                write_u32(out, 0);
                let length_at = out.len() - 4;
                // The padding before the first element does not count, and is there even without one.
                align(out, alignment(element));
                let begin = out.len();
                for element in elements {
                    element.write(out);
                }
                let bytes = length(out.len() - begin);
                out[length_at..length_at + 4].copy_from_slice(&bytes.to_le_bytes());
            }
            Self::Tuple(fields) => {
                align(out, 8);
                for field in fields {
                    field.write(out);
                }
            }
            Self::Variant(value) => {
                Self::Signature(value.signature()).write(out);
                value.write(out);
            }
        }
    }
}

/// The bus cuts messages at 128 MiB; a length that does not fit is one that it refuses.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

pub(super) fn write_u32(out: &mut Vec<u8>, value: u32) {
    put(out, &value.to_le_bytes());
}

/// A number: aligned to its own size.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    align(out, bytes.len());
    out.extend_from_slice(bytes);
}

pub(super) fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Where a value of this type may begin.
pub(super) fn alignment(signature: &str) -> usize {
    match signature.bytes().next() {
        Some(b'y' | b'g' | b'v') | None => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        Some(_) => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn values_are_aligned_to_their_size_and_carry_their_type() {
        let value = Value::Tuple(vec![Value::Byte(1), Value::U16(2), Value::Bool(true), Value::U64(3)]);
        assert_eq!(value.signature(), "(yqbt)");
        assert_eq!(bytes(&value), [1, 0, 2, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        let property = Value::property("PIDs", Value::Array("u".into(), vec![Value::U32(7)]));
        assert_eq!(property.signature(), "(sv)");
        assert_eq!(bytes(&property), b"\x04\0\0\0PIDs\0\x02au\0\0\0\0\x04\0\0\0\x07\0\0\0");
    }

    #[test]
    fn an_array_does_not_count_the_padding_before_its_first_element() {
        let empty = Value::Array("(sv)".into(), Vec::new());
        assert_eq!(bytes(&empty), [0; 8]);
        let one = Value::Array("t".into(), vec![Value::U64(1)]);
        assert_eq!(bytes(&one), [8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }
}
