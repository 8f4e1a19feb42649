//! Finds the line and column of a JSON pointer, for errors. Works on text that is known to be valid JSON.

/// Where something is in a text, both counted from 1; the column counts bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// The position of the value at `pointer`, or of its nearest ancestor that exists.
pub(crate) fn locate(text: &[u8], pointer: &str) -> Position {
    let mut at = skip_space(text, 0);
    for segment in pointer.split('/').skip(1) {
        match child(text, at, &segment.replace("~1", "/").replace("~0", "~")) {
            Some(next) => at = next,
            None => break,
        }
    }
    position(text, at)
}

/// The position of a byte offset.
fn position(text: &[u8], offset: usize) -> Position {
    let before = &text[..offset.min(text.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    Position { line, column: before.len() - line_start + 1 }
}

/// The offset of the member or element `segment` of the value at `at`; of two members with one name the last counts.
fn child(text: &[u8], at: usize, segment: &str) -> Option<usize> {
    let is_object = match text.get(at)? {
        b'{' => true,
        b'[' => false,
        _ => return None,
    };
    let index: Option<usize> = segment.parse().ok();
    let mut found = None;
    let mut next = skip_space(text, at + 1);
    let mut count = 0;
    while !matches!(text.get(next), None | Some(b'}' | b']')) {
        let mut matches = Some(count) == index;
        if is_object {
            let end = skip_string(text, next);
            matches = serde_json::from_slice::<String>(text.get(next..end)?).is_ok_and(|key| key == segment);
            // Past the colon.
            next = skip_space(text, skip_space(text, end) + 1);
        }
        if matches {
            found = Some(next);
        }
        next = skip_space(text, skip_value(text, next));
        if text.get(next) == Some(&b',') {
            next = skip_space(text, next + 1);
        }
        count += 1;
    }
    found
}

fn skip_space(text: &[u8], from: usize) -> usize {
    let blank = text[from.min(text.len())..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    from + blank
}

/// The offset after the string whose opening quote is at `from`.
fn skip_string(text: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The offset after the value at `from`. Counts brackets instead of recursing: depth costs nothing.
fn skip_value(text: &[u8], from: usize) -> usize {
    let mut depth = 0usize;
    let mut at = from;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => {
                at = skip_string(text, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return if depth == 1 { at + 1 } else { at },
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
  "a": [1, {"b/c": "x, ]}\" y"}, [true]],
  "d": {
    "e": {}, "f": null, "f": -1.5e3
  }
}"#;

    #[test]
    fn a_pointer_is_found_or_its_nearest_ancestor() {
        let cases = [
            ("", (1, 1)),
            ("/a", (2, 8)),
            ("/a/0", (2, 9)),
            ("/a/1", (2, 12)),
            ("/a/1/b~1c", (2, 20)),
            ("/a/2/0", (2, 35)),
            ("/a/9", (2, 8)),
            ("/d/e", (4, 10)),
            ("/d/f", (4, 30)),
            ("/d/e/none/deeper", (4, 10)),
            ("/none", (1, 1)),
            ("/a/0/x", (2, 9)),
        ];
        for (pointer, (line, column)) in cases {
            assert_eq!(locate(TEXT.as_bytes(), pointer), Position { line, column }, "{pointer}");
        }
    }

    #[test]
    fn no_text_makes_it_loop_or_panic() {
        for cut in 0..TEXT.len() {
            locate(&TEXT.as_bytes()[..cut], "/d/f");
            locate(&TEXT.as_bytes()[cut..], "/a/1/b~1c");
        }
    }
}
