//! Help, man pages, shell completion and docs/flags.md speak of the same flags: those of the definitions.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};

#[path = "../examples/documents.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not called here")]
mod documents;

/// A directory that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tare-documents-{}", std::process::id()));
        let _may_not_exist = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn built() -> Command {
    let mut tree = tare_cli::command_tree();
    tree.build();
    tree
}

fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some())
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{:?}: {error}", path.as_ref()))
}

/// The flag as roff writes it.
fn in_roff(long: &str) -> String {
    format!("\\-\\-{}\\fR", long.replace('-', "\\-"))
}

#[test]
fn every_flag_is_in_help_man_page_and_completion() {
    let scratch = Scratch::new();
    documents::write(&scratch.0).unwrap();
    let completions = ["tare.bash", "_tare", "tare.fish"].map(|name| read(scratch.0.join("completions").join(name)));
    let [bash, zsh, fish] = &completions;
    let tree = built();
    let commands = std::iter::once((&tree, "tare".to_owned()))
        .chain(tree.get_subcommands().map(|verb| (verb, format!("tare-{}", verb.get_name()))));
    for (command, page) in commands {
        let help = command.clone().render_long_help().to_string();
        let man = read(scratch.0.join("man8").join(format!("{page}.8")));
        assert!(man.contains(".SH NAME\n") && man.contains(".SH DESCRIPTION\n"), "{page}: {man}");
        for flag in flags(command) {
            let long = flag.get_long().unwrap();
            let told = !flag.is_hide_set();
            assert_eq!(
                help.contains(&format!("--{long} ")) || help.contains(&format!("--{long}\n")),
                told,
                "{page} help --{long}"
            );
            assert_eq!(man.contains(&in_roff(long)), told, "{page}.8 --{long}");
            if told {
                assert!(flag.get_help().is_some(), "{page} --{long} has no text");
                for (shell, text, needle) in [
                    ("bash", bash, format!("--{long}")),
                    ("zsh", zsh, format!("--{long}")),
                    ("fish", fish, format!("-l {long}")),
                ] {
                    assert!(text.contains(&needle), "{shell} {page} --{long}");
                }
            }
        }
    }
    // A verb's own completion, not only the flag of its name somewhere.
    for verb in tree.get_subcommands() {
        let name = verb.get_name();
        let line = bash.lines().skip_while(|line| line.trim() != format!("tare__subcmd__{name})")).nth(1);
        let opts = line.unwrap_or_else(|| panic!("{name}: no case in bash"));
        for flag in flags(verb).filter(|flag| !flag.is_hide_set()) {
            assert!(opts.contains(&format!("--{}", flag.get_long().unwrap())), "{name} {flag}: {opts}");
        }
    }
}

/// Verb (`-` for the flags before it) and flag, of every flag, hidden ones too.
fn definitions() -> BTreeSet<(String, String)> {
    let tree = built();
    let commands = std::iter::once((&tree, "-")).chain(tree.get_subcommands().map(|verb| (verb, verb.get_name())));
    let named = commands.flat_map(|(command, verb)| {
        flags(command).map(move |flag| (verb.to_owned(), format!("--{}", flag.get_long().unwrap())))
    });
    // Of all alike.
    named.filter(|(_, flag)| flag != "--help").collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The rows of docs/flags.md: verb, flag, tests.
fn rows() -> Vec<(String, String, Vec<String>)> {
    let text = read(repository().join("docs/flags.md"));
    let code = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains("| `--"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [verb, flag, tests] = cells[..] else { panic!("three cells: {line}") };
        (verb.to_owned(), code(flag).remove(0), code(tests))
    })
    .collect()
}

/// `e2e/exec::x` is a test in tests/e2e/exec.rs, `cli/args::x` one in src/args/tests.rs or src/args.rs.
fn has_test(name: &str) -> bool {
    let Some((file, test)) = name.rsplit_once("::") else { return false };
    let files = match file.split_once('/') {
        Some(("e2e", module)) => vec![format!("tests/e2e/{module}.rs")],
        Some(("cli", module)) => vec![format!("src/{module}/tests.rs"), format!("src/{module}.rs")],
        _ => return false,
    };
    files.iter().any(|file| {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.windows(2).any(|pair| pair[0] == "#[test]" && pair[1].starts_with(&format!("fn {test}()")))
    })
}

#[test]
fn every_flag_has_a_row_in_the_table_and_every_row_a_test() {
    let rows = rows();
    let named: BTreeSet<_> = rows.iter().map(|(verb, flag, _)| (verb.clone(), flag.clone())).collect();
    assert_eq!(named.len(), rows.len(), "a flag has one row");
    let definitions = definitions();
    let missing: Vec<_> = definitions.difference(&named).collect();
    assert!(missing.is_empty(), "no row in docs/flags.md: {missing:?}");
    let stale: Vec<_> = named.difference(&definitions).collect();
    assert!(stale.is_empty(), "a row of docs/flags.md without a flag: {stale:?}");
    for (verb, flag, tests) in &rows {
        assert!(!tests.is_empty(), "{verb} {flag}: no test");
        for test in tests {
            assert!(has_test(test), "{verb} {flag}: there is no test {test}");
        }
    }
    assert!(!has_test("e2e/exec::no_such_test") && !has_test("cli/nothing::x") && !has_test("x"));
}

/// The tests in tests/e2e/advisories, as `module::name`.
fn advisory_tests() -> BTreeSet<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/advisories");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let (module, text) = (path.file_stem().unwrap().to_str().unwrap().to_owned(), read(&path));
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[test]") {
            let name = pair[1].strip_prefix("fn ").and_then(|rest| rest.split_once('(')).unwrap().0;
            found.insert(format!("{module}::{name}"));
        }
    }
    found
}

#[test]
fn every_test_of_an_advisory_is_in_the_table_and_passes() {
    let text = read(repository().join("docs/advisories.md"));
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `") && line.contains("::")).collect();
    let named: BTreeSet<String> = rows.iter().map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    assert_eq!(named, advisory_tests());
    for row in rows {
        assert_eq!(row.split('|').nth(2).unwrap().trim(), "passes", "{row}");
    }
}

/// The tests that a document names in backticks: `e2e/order::x`.
fn named_tests(document: &str) -> Vec<String> {
    let text = read(repository().join(document));
    let names = text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("e2e/") && code.contains("::"));
    names.map(str::to_owned).collect()
}

#[test]
fn every_constraint_of_the_order_names_its_test() {
    let text = read(repository().join("ARCHITECTURE.md"));
    let section = text.split("## Why this order").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.iter().all(|row| row.contains("| `e2e/")) && !rows.is_empty(), "{rows:#?}");
    for document in ["ARCHITECTURE.md", "SECURITY.md", "docs/faults.md"] {
        let missing: Vec<String> = named_tests(document).into_iter().filter(|name| !has_test(name)).collect();
        assert!(missing.is_empty(), "{document}: no such tests: {missing:#?}");
    }
}

/// The Rust files below a directory.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn unsafe_code_is_allowed_in_one_module_and_forbidden_in_the_other_crates() {
    let (mut files, crates) = (Vec::new(), repository().join("crates"));
    sources(&crates, &mut files);
    let lint = concat!("unsafe", "_code");
    let with = |word: &str| -> Vec<String> {
        let attribute = format!("{word}({lint}");
        let has = |path: &&PathBuf| read(path).contains(&attribute);
        let name = |path: &PathBuf| path.strip_prefix(&crates).unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<String> = files.iter().filter(has).map(name).collect();
        names.sort_unstable();
        names
    };
    // In the second for the macro that defines the program's `main`, all of whose code is there.
    assert_eq!(with("allow"), ["sandbox/src/sys.rs", "sandbox/src/sys/start.rs"]);
    let main = read(crates.join("cli/src/main.rs"));
    let code: Vec<&str> = main.lines().filter(|line| !line.is_empty() && !line.starts_with("//!")).collect();
    assert_eq!(code, ["#![no_main]", "tare_sandbox::program!(tare_cli::main);"]);
    assert_eq!(with("expect"), [""; 0]);
    let forbidding = with("forbid");
    for root in fs::read_dir(&crates).unwrap().map(|entry| entry.unwrap().path().join("src/lib.rs")) {
        let name = root.strip_prefix(&crates).unwrap().to_str().unwrap();
        assert!(forbidding.iter().any(|file| file == name) || name == "sandbox/src/lib.rs", "{name}");
    }
    assert!(forbidding.iter().any(|file| file == "cli/tests/e2e/main.rs"));
    // The others begin with what the whole workspace denies, and allows nowhere else.
    assert!(read(repository().join("Cargo.toml")).contains(&format!("{lint} = \"deny\"")));
    for package in fs::read_dir(&crates).unwrap().map(|entry| entry.unwrap().path().join("Cargo.toml")) {
        assert!(read(&package).contains("[lints]\nworkspace = true"), "{package:?}");
    }
}
