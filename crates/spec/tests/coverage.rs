//! docs/spec-coverage.md, and for limits docs/cgroups.md, is complete and true: every field of the types, modules and tests that exist, states that are what
//! the code does.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use tare_spec::field::Shape;

struct Row {
    field: String,
    module: Vec<String>,
    tests: Vec<String>,
    kernel: String,
    state: String,
}

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(crates().join("../docs/spec-coverage.md")).unwrap();
    let code = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let lines = text.lines().filter(|line| line.starts_with("| `/"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [field, module, tests, kernel, state] = cells[..] else { panic!("five cells: {line}") };
            Row {
                field: code(field).remove(0),
                module: code(module),
                tests: code(tests),
                kernel: kernel.to_owned(),
                state: state.to_owned(),
            }
        })
        .collect()
}

/// `sandbox/init/finish` is crates/sandbox/src/init/finish.rs; `e2e/mounts` is a file of the end-to-end tests.
fn file_of(name: &str) -> PathBuf {
    let (package, path) = name.split_once('/').unwrap();
    match package {
        "e2e" => crates().join("cli/tests/e2e").join(path).with_extension("rs"),
        package => crates().join(package).join("src").join(path).with_extension("rs"),
    }
}

fn has_test(name: &str) -> bool {
    let Some((file, test)) = name.rsplit_once("::") else { return false };
    let text = fs::read_to_string(file_of(file)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.windows(2).any(|pair| pair[0] == "#[test]" && pair[1].starts_with(&format!("fn {test}()")))
}

#[test]
fn every_field_has_one_row_and_every_row_a_field() {
    let mut rows_of: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows() {
        *rows_of.entry(row.field).or_default() += 1;
    }
    let fields: BTreeSet<String> = Shape::config()
        .pointers()
        .into_iter()
        // Of what is for other platforms the whole is one row.
        .filter(|field| !["/windows/", "/solaris/", "/zos/", "/vm/"].iter().any(|start| field.starts_with(start)))
        .collect();
    for field in &fields {
        assert_eq!(rows_of.remove(field), Some(1), "{field}: rows in docs/spec-coverage.md");
    }
    assert!(rows_of.is_empty(), "no fields of the types: {rows_of:?}");
}

#[test]
fn every_module_and_every_test_that_is_named_exists() {
    for row in rows() {
        let field = &row.field;
        assert!(!row.module.is_empty() && !row.tests.is_empty() && !row.kernel.is_empty(), "{field}: an empty cell");
        for module in &row.module {
            assert!(file_of(module).is_file(), "{field}: no module {module}");
        }
        for test in &row.tests {
            assert!(has_test(test), "{field}: no test {test}");
        }
    }
    assert!(!has_test("e2e/mounts::no_such_test") && !has_test("e2e/nothing::x"));
}

#[test]
fn every_field_is_done_or_says_why_not() {
    for Row { field, state, .. } in &rows() {
        let known = state == "done" || state == "for another platform" || state.starts_with("ignored with a warning: ");
        assert!(known, "{field}: {state:?} is no state");
    }
}

/// The rows of docs/cgroups.md: the field as it is written there, and all cells.
fn limit_rows() -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(crates().join("../docs/cgroups.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        assert_eq!(cells.len(), 7, "{line}");
        (cells[0].trim_matches('`').to_owned(), cells)
    })
    .collect()
}

#[test]
fn every_limit_has_one_row_with_its_files_and_a_test() {
    let fields: BTreeSet<String> = Shape::config()
        .pointers()
        .into_iter()
        .filter_map(|pointer| {
            // Of a list or a map the whole is one row.
            let field = pointer.strip_prefix("/linux/resources/")?.split("/*").next()?.to_owned();
            Some(field.replace('/', "."))
        })
        .collect();
    let parents: Vec<&String> =
        fields.iter().filter(|field| fields.iter().any(|other| other.starts_with(&format!("{field}.")))).collect();
    let expected: BTreeSet<&String> = fields.iter().filter(|field| !parents.contains(field)).collect();
    let rows = limit_rows();
    let found: BTreeSet<&String> = rows.iter().map(|(field, _)| field).collect();
    assert!(expected.len() > 25, "{expected:?}");
    assert_eq!(found, expected, "rows of docs/cgroups.md, and fields of the types");
    assert_eq!(rows.len(), found.len(), "a field with two rows");
    for (field, cells) in &rows {
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{field}: an empty cell");
        let tests: Vec<&str> = cells[4].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{field}: no test");
        for test in tests {
            assert!(has_test(test), "{field}: no test {test}");
        }
    }
}
