//! Values as text: the part of GVariant's format that annotations of containers are written in.
//!
//! <https://docs.gtk.org/glib/gvariant-text-format.html>, without dictionaries, maybe types and byte strings.

use super::value::Value;

/// Reads one value: `true`, `5`, `uint64 5`, `'text'`, `['a', 'b']`, `@as []`, `(1, 'x')`, `<1>`.
///
/// # Errors
/// What was expected, and where.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(None)?;
    parser.skip_blanks();
    if parser.at < text.len() {
        return Err(parser.expected("the end"));
    }
    Ok(value)
}

/// Nobody nests deeper; a recursion without end is an attack.
const MAX_DEPTH: usize = 16;

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expected(&self, what: &str) -> String {
        format!("expected {what} at byte {} of {:?}", self.at, self.text)
    }

    /// Everything up to a character that no word or number has.
    fn word(&mut self) -> &'a str {
        self.skip_blanks();
        let rest = self.rest();
        let end = rest.find(|char: char| !(char.is_ascii_alphanumeric() || "+-._".contains(char)));
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn value(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        self.nested(wanted, 0)
    }

    fn nested(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(self.expected("a value less deep"));
        }
        self.skip_blanks();
        match self.rest().chars().next() {
            Some('@') => {
                self.at += 1;
                let end = self.rest().find(char::is_whitespace).ok_or_else(|| self.expected("a value"))?;
                let signature = &self.rest()[..end];
                self.at += end;
                self.nested(Some(signature), depth + 1)
            }
            Some('\'' | '"') => typed(&self.string()?, wanted.unwrap_or("s")).ok_or_else(|| self.expected("no text")),
            Some('[') => self.array(wanted, depth),
            Some('(') => self.tuple(depth),
            Some('<') => {
                self.at += 1;
                let value = self.nested(None, depth + 1)?;
                if self.take(">") { Ok(Value::Variant(Box::new(value))) } else { Err(self.expected("'>'")) }
            }
            _ => self.scalar(wanted),
        }
    }

    fn scalar(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        let begin = self.at;
        let word = self.word();
        let signature = match word {
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "objectpath" => "o",
            "signature" => "g",
            "true" | "false" => return Ok(Value::Bool(word == "true")),
            _ => {
                let number = parse_number(word, wanted.unwrap_or(default_type(word)));
                return number.ok_or_else(|| {
                    self.at = begin;
                    self.expected("a value")
                });
            }
        };
        self.nested(Some(signature), MAX_DEPTH)
    }

    /// A text in quotes of either kind.
    fn string(&mut self) -> Result<String, String> {
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map(|(_, quote)| quote);
        let mut text = String::new();
        while let Some((at, char)) = chars.next() {
            if Some(char) == quote {
                self.at += at + 1;
                return Ok(text);
            }
            text.push(match char {
                '\\' => match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    Some((_, 'r')) => '\r',
                    Some((_, 'u' | 'U' | 'a' | 'b' | 'f' | 'v')) | None => return Err(self.expected("another escape")),
                    Some((_, other)) => other,
                },
                other => other,
            });
        }
        Err(self.expected("a closing quote"))
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut element = match wanted {
            None => None,
            Some(signature) => Some(signature.strip_prefix('a').ok_or_else(|| self.expected("no array"))?.to_owned()),
        };
        let mut elements = Vec::new();
        while !self.take("]") {
            if !elements.is_empty() && !self.take(",") {
                return Err(self.expected("',' or ']'"));
            }
            let value = self.nested(element.as_deref(), depth + 1)?;
            let signature = value.signature();
            if *element.get_or_insert_with(|| signature.clone()) != signature {
                return Err(self.expected("elements of one type"));
            }
            elements.push(value);
        }
        match element {
            Some(element) => Ok(Value::Array(element, elements)),
            None => Err(self.expected("a type before an empty array, as in \"@as []\"")),
        }
    }

    fn tuple(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut fields = Vec::new();
        while !self.take(")") {
            if !fields.is_empty() && !self.take(",") {
                return Err(self.expected("',' or ')'"));
            }
            fields.push(self.nested(None, depth + 1)?);
        }
        if fields.is_empty() { Err(self.expected("a value in parentheses")) } else { Ok(Value::Tuple(fields)) }
    }
}

fn typed(text: &str, signature: &str) -> Option<Value> {
    Some(match signature {
        "s" => Value::str(text),
        "o" => Value::Path(text.into()),
        "g" => Value::Signature(text.into()),
        _ => return None,
    })
}

/// A number without a type is an int32, with a point or an exponent a double.
fn default_type(word: &str) -> &'static str {
    let decimal = !word.starts_with("0x") && word.contains(['.', 'e']);
    if decimal || word == "inf" || word == "nan" { "d" } else { "i" }
}

fn parse_number(word: &str, signature: &str) -> Option<Value> {
    fn integer<T: TryFrom<i128>>(word: &str) -> Option<T> {
        let (sign, digits) = match word.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, word.strip_prefix('+').unwrap_or(word)),
        };
        let magnitude = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(digits, 8),
            None => digits.parse(),
        };
        T::try_from(sign * i128::from(magnitude.ok()?)).ok()
    }
    Some(match signature {
        "y" => Value::Byte(integer(word)?),
        "n" => Value::I16(integer(word)?),
        "q" => Value::U16(integer(word)?),
        "i" => Value::I32(integer(word)?),
        "u" => Value::U32(integer(word)?),
        "x" => Value::I64(integer(word)?),
        "t" => Value::U64(integer(word)?),
        "d" => Value::F64(word.parse().ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_kind_are_read() {
        let strings = |of: &[&str]| Value::Array("s".into(), of.iter().map(|text| Value::str(*text)).collect());
        for (text, value) in [
            ("true", Value::Bool(true)),
            (" 5 ", Value::I32(5)),
            ("-0x10", Value::I32(-16)),
            ("010", Value::I32(8)),
            ("1.5", Value::F64(1.5)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@t 7", Value::U64(7)),
            ("int64 -1", Value::I64(-1)),
            ("byte 0x1f", Value::Byte(31)),
            ("'inactive-or-failed'", Value::str("inactive-or-failed")),
            (r#""it's \"so\"\n""#, Value::str("it's \"so\"\n")),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a.service', 'b.service']", strings(&["a.service", "b.service"])),
            ("@as []", strings(&[])),
            ("@at [1, 2]", Value::Array("t".into(), vec![Value::U64(1), Value::U64(2)])),
            ("('/dev/null', uint64 5)", Value::Tuple(vec![Value::str("/dev/null"), Value::U64(5)])),
            ("<1>", Value::Variant(Box::new(Value::I32(1)))),
            (
                "[('/dev/null', 'rw')]",
                Value::Array("(ss)".into(), vec![Value::Tuple(vec![Value::str("/dev/null"), Value::str("rw")])]),
            ),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_with_its_place() {
        for (text, message) in [
            ("", "expected a value at byte 0 of \"\""),
            ("yes", "expected a value at byte 0 of \"yes\""),
            ("5 6", "expected the end at byte 2 of \"5 6\""),
            ("'a", "expected a closing quote at byte 0 of \"'a\""),
            ("uint32 -1", "expected a value at byte 7 of \"uint32 -1\""),
            ("[1, 'a']", "expected no text at byte 7 of \"[1, 'a']\""),
            ("[1, true]", "expected elements of one type at byte 8 of \"[1, true]\""),
            ("[]", "expected a type before an empty array, as in \"@as []\" at byte 2 of \"[]\""),
            ("[1 2]", "expected ',' or ']' at byte 3 of \"[1 2]\""),
            ("int32 'a'", "expected no text at byte 9 of \"int32 'a'\""),
            ("@as", "expected a value at byte 1 of \"@as\""),
            ("()", "expected a value in parentheses at byte 2 of \"()\""),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()));
        }
        // Under Miri it takes minutes to copy that much into the message.
        let many = if cfg!(miri) { 1000 } else { 100_000 };
        assert!(parse(&"[".repeat(many)).unwrap_err().contains("less deep"));
        assert!(parse(&"@v ".repeat(many)).unwrap_err().contains("less deep"));
        assert!(parse("[é").is_err() && parse("'\\é'").is_ok());
    }
}
