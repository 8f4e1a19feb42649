//! Every wrong type, not the first alone: what is wrong is taken out, and the rest decoded again.

use std::collections::BTreeMap;

use super::{Finding, Spec, Value, escape, plain, pointer, similar, tolerate_spec};

/// More than anybody reads; each costs one decoding.
const MOST: usize = 100;

/// Decodes what is left when what cannot be decoded, and the `misplaced`, is taken out.
pub(super) fn decode(document: &Value, misplaced: &[Finding]) -> (Option<Spec>, Vec<Finding>) {
    let mut value = document.clone();
    tolerate_spec(&mut value);
    let mut out = TakenOut { value, indices: BTreeMap::new(), pointers: Vec::new() };
    let mut faults = Vec::new();
    for finding in misplaced.iter().rev() {
        // From the end, so that the indices of those before stay.
        out.take(&finding.pointer, finding.pointer.clone());
    }
    for _ in 0..MOST {
        let error = match serde_path_to_error::deserialize::<_, Spec>(&out.value) {
            Ok(spec) => return (Some(spec), faults),
            Err(error) => error,
        };
        let at = pointer(error.path());
        let original = out.original(&at);
        let cause = plain(error.inner());
        let missing = cause.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        let taken = missing.map(|name| format!("{original}/{}", escape(name)));
        if taken.is_none_or(|taken| !out.pointers.contains(&taken)) {
            faults.push(match missing {
                Some(name) => {
                    Finding { pointer: original.clone(), cause: format!("required field {name:?} is missing") }
                }
                None => Finding { pointer: original.clone(), cause: similar::word(cause) },
            });
        }
        if at.is_empty() || !out.take(&at, original) {
            break;
        }
    }
    (None, faults)
}

/// A document with holes.
struct TakenOut {
    value: Value,
    /// For every array that lost elements, by its pointer in the document as it was: which, by their old indices.
    indices: BTreeMap<String, Vec<usize>>,
    pointers: Vec<String>,
}

impl TakenOut {
    /// Takes out what is at `at` now and was at `original`. False if there is nothing.
    fn take(&mut self, at: &str, original: String) -> bool {
        let Some((parent, segment)) = at.rsplit_once('/') else { return false };
        let taken = match self.value.pointer_mut(parent) {
            Some(Value::Object(members)) => members.remove(&segment.replace("~1", "/").replace("~0", "~")).is_some(),
            Some(Value::Array(elements)) => match segment.parse::<usize>() {
                Ok(index) if index < elements.len() => {
                    elements.remove(index);
                    true
                }
                _ => false,
            },
            _ => false,
        };
        if taken && let Some((parent, segment)) = original.rsplit_once('/') {
            if let Ok(index) = segment.parse() {
                self.indices.entry(parent.to_owned()).or_default().push(index);
            }
            self.pointers.push(original);
        }
        taken
    }

    /// Where what is at `at` now was.
    fn original(&self, at: &str) -> String {
        let mut original = String::new();
        for segment in at.split('/').skip(1) {
            let moved = self.indices.get(&original).zip(segment.parse::<usize>().ok());
            let segment = match moved {
                Some((gone, index)) => (0..).filter(|old| !gone.contains(old)).nth(index).unwrap_or(index).to_string(),
                None => segment.to_owned(),
            };
            original = format!("{original}/{segment}");
        }
        original
    }
}
