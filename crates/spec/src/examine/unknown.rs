//! Members that no type knows. The specification wants them ignored, and so they are; but most are slips.

use super::{Finding, Value, escape, similar};
use crate::field::{self, Shape};

/// Every unknown member of a configuration, and every one that is known but for others.
pub(super) fn fields(document: &Value) -> Vec<Finding> {
    let shape = Shape::config();
    let all = shape.pointers();
    let mut found = Vec::new();
    walk(document, &shape, Place { at: "", general: "" }, &all, &mut found);
    found
}

/// Where we are: in the document, and with `*` for indices and free names.
#[derive(Clone, Copy)]
struct Place<'a> {
    at: &'a str,
    general: &'a str,
}

fn walk(value: &Value, shape: &Shape, place: Place<'_>, all: &[String], found: &mut Vec<Finding>) {
    match (value, shape) {
        (Value::Object(members), Shape::Object(known)) => {
            for (name, member) in members {
                let at = format!("{}/{}", place.at, escape(name));
                let general = format!("{}/{name}", place.general);
                if let Some(remark) = field::ignored(&general) {
                    if !member.is_null() {
                        found.push(Finding { pointer: at, cause: remark.to_owned() });
                    }
                } else if let Some(shape) = known.get(name.as_str()) {
                    walk(member, shape, Place { at: &at, general: &general }, all, found);
                } else {
                    let hint = suggest(name, known.keys().copied(), all);
                    found.push(Finding { pointer: at, cause: format!("unknown field, ignored{hint}") });
                }
            }
        }
        (Value::Object(members), Shape::Map(inner)) => {
            for (name, member) in members {
                let (at, general) = (format!("{}/{}", place.at, escape(name)), format!("{}/*", place.general));
                walk(member, inner, Place { at: &at, general: &general }, all, found);
            }
        }
        (Value::Array(elements), Shape::Array(inner)) => {
            for (index, element) in elements.iter().enumerate() {
                let (at, general) = (format!("{}/{index}", place.at), format!("{}/*", place.general));
                walk(element, inner, Place { at: &at, general: &general }, all, found);
            }
        }
        // A wrong type is an error of its own.
        _ => {}
    }
}

/// A name beside it that is near, or the place where a field of just this name belongs.
fn suggest<'a>(name: &str, siblings: impl Iterator<Item = &'a str>, all: &[String]) -> String {
    if let Some(meant) = similar::nearest(name, siblings) {
        return format!(", did you mean {meant:?}?");
    }
    let suffix = format!("/{name}");
    let mut places = all.iter().filter(|pointer| pointer.ends_with(&suffix));
    match (places.next(), places.next()) {
        (Some(only), None) => format!(", did you mean {only}?"),
        _ => String::new(),
    }
}
