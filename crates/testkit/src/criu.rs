//! CRIU, for the tests of checkpoint and restore.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A CRIU that works on this kernel.
#[derive(Debug)]
pub struct Criu {
    program: PathBuf,
}

impl Criu {
    /// The one in PATH, or the one that `hack/criu` has fetched.
    ///
    /// # Errors
    /// Why there is none: to be told by [`crate::skip!`].
    pub fn find() -> Result<&'static Self, &'static str> {
        static FOUND: OnceLock<Result<Criu, String>> = OnceLock::new();
        FOUND.get_or_init(Self::look).as_ref().map_err(String::as_str)
    }

    fn look() -> Result<Self, String> {
        let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/criu");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path).chain([fetched]).map(|directory| directory.join("criu"));
        let program = places.find(|program| program.is_file()).ok_or("there is no CRIU: hack/criu fetches one")?;
        let criu = Self { program: program.canonicalize().map_err(|error| error.to_string())? };
        criu.check(&[]).map(|()| criu)
    }

    fn check(&self, arguments: &[&str]) -> Result<(), String> {
        let checked = Command::new(&self.program).arg("check").args(arguments).output();
        let checked = checked.map_err(|error| format!("{:?}: {error}", self.program))?;
        if checked.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
        let arguments = arguments.join(" ");
        Err(format!("`criu check {arguments}` fails: {}", said.trim().replace('\n', "; ")))
    }

    /// Whether the kernel lets it do what `criu check --feature` names.
    ///
    /// # Errors
    /// Why not.
    pub fn can(&self, feature: &str) -> Result<(), String> {
        self.check(&["--feature", feature])
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// PATH with the directory of this CRIU in front.
    pub fn path(&self) -> String {
        let directory = self.program.parent().unwrap_or(Path::new("/"));
        format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default())
    }
}
