//! `check`.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Value, json};
use tare_sandbox::cgroup::{self, Driver, Location, outline as cgroup_outline};
use tare_sandbox::container::CreateOptions;
use tare_sandbox::plan::Plan;
use tare_sandbox::plan::outline::{Action, outline, pointer};
use tare_spec::Bundle;
use tare_spec::examine::{self, Examined, Remark, Severity};

use crate::args::{Check, Global};
use crate::report::Cause;

/// The name that stands for the container's in a plan.
const ID: &str = "ID";

/// Prints what there is to say about a bundle; the code is 1 if no container can be made of it.
///
/// # Errors
/// A bundle that cannot be read, a flag that cannot be.
pub(super) fn write(global: &Global, check: &Check) -> Result<u8, Cause> {
    let wanted = match check.cgroup_version.as_deref() {
        None => None,
        Some("v1") => Some(cgroup_outline::Version::V1),
        Some("v2") => Some(cgroup_outline::Version::V2),
        Some(other) => return Err(format!("--cgroup-version {other:?} is not v1 or v2").into()),
    };
    let print: fn(&Examined, Option<&[Action]>) -> Result<(), String> = match check.format.as_str() {
        "text" => print_text,
        "json" => print_json,
        other => return Err(format!("--format {other:?} is not text or json").into()),
    };
    let dir = check.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let mut examined = examine::bundle(&dir).map_err(|error| error.to_string())?;
    let actions = match examined.bundle.take() {
        Some(mut bundle) => match actions(global, wanted, &mut bundle) {
            Ok((actions, ignored)) => {
                for (field, cause) in ignored {
                    examined.warn(&pointer(field), &cause);
                }
                Some(actions)
            }
            Err(Refusal::Field(field, cause)) => {
                examined.refuse(&field, &cause);
                None
            }
            Err(Refusal::Host(cause)) => return Err(cause),
        },
        None => None,
    };
    print(&examined, actions.as_deref().filter(|_| check.plan))?;
    Ok(u8::from(!examined.is_usable()))
}

enum Refusal {
    /// A field of the configuration, and what is wrong with it.
    Field(String, String),
    /// Something else.
    Host(Cause),
}

impl From<tare_sandbox::Error> for Refusal {
    /// Most errors of a plan begin with their field: `mounts[3].options: …`.
    fn from(error: tare_sandbox::Error) -> Self {
        let text = error.to_string();
        let member = |field: &str| field.split(['.', '[']).next().is_some_and(|first| MEMBERS.contains(&first));
        match text.split_once(": ") {
            Some((field, cause)) if member(field) => Self::Field(pointer(field), cause.to_owned()),
            _ => Self::Host(error.into()),
        }
    }
}

const MEMBERS: &[&str] = &["process", "root", "mounts", "hooks", "linux", "hostname", "domainname"];

/// Fields, and why nothing comes of them.
type Ignored = Vec<(&'static str, String)>;

/// The steps of a plan, and the limits that have none: fields that the version of cgroups has nothing for.
fn actions(
    global: &Global,
    wanted: Option<cgroup_outline::Version>,
    bundle: &mut Bundle,
) -> Result<(Vec<Action>, Ignored), Refusal> {
    let options = CreateOptions { bundle: bundle.dir.clone(), ..CreateOptions::default() };
    let plan = Plan::new(ID, bundle, &options)?;
    let location = location(global, wanted, bundle, &plan)?;
    let ignored = cgroup_outline::version(&location).map(|version| {
        let cause = format!("ignored: cgroup {version} has nothing that does this");
        cgroup_outline::ignored(version, &plan.resources).into_iter().map(|field| (field, cause.clone())).collect()
    });
    Ok((outline(&plan, bundle, &location)?, ignored.unwrap_or_default()))
}

/// Where the cgroup would be: on this host, or where hosts with the `wanted` version have it.
fn location(
    global: &Global,
    wanted: Option<cgroup_outline::Version>,
    bundle: &Bundle,
    plan: &Plan,
) -> Result<Location, Refusal> {
    let runtime = global.runtime().map_err(|cause| Refusal::Host(cause.into()))?;
    let path = bundle.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    match (wanted, runtime.cgroup_driver) {
        (Some(wanted), Driver::Cgroupfs)
            if cgroup_outline::version(&cgroup::locate(Driver::Cgroupfs, path, ID)?) != Some(wanted) =>
        {
            Ok(cgroup_outline::usual(wanted, path, ID))
        }
        _ => Ok(runtime.locate_cgroup(ID, bundle, plan)?),
    }
}

fn print_text(examined: &Examined, actions: Option<&[Action]>) -> Result<(), String> {
    let mut text = String::new();
    let path = examined.path.display();
    // Writing to a String cannot fail.
    for remark in &examined.remarks {
        let _ = writeln!(text, "{path}:{remark}");
    }
    let mut step = "";
    for action in actions.unwrap_or_default() {
        if action.step != step {
            step = action.step;
            let _ = writeln!(text, "{step}");
        }
        let _ = match action.field.as_str() {
            "" => writeln!(text, "  {}", action.action),
            field => writeln!(text, "  {}  [{field}]", action.action),
        };
        if let Some(note) = &action.note {
            let _ = writeln!(text, "    {note}");
        }
    }
    super::print(&text)
}

fn print_json(examined: &Examined, actions: Option<&[Action]>) -> Result<(), String> {
    let remark = |remark: &Remark| json!({"pointer": remark.pointer, "line": remark.line, "column": remark.column, "message": remark.cause});
    let of = |severity: Severity| -> Vec<Value> {
        examined.remarks.iter().filter(|one| one.severity == severity).map(remark).collect()
    };
    let mut document = json!({
        "config": examined.path,
        "errors": of(Severity::Error),
        "warnings": of(Severity::Warning),
    });
    if let Some(actions) = actions {
        document["plan"] = serde_json::to_value(actions).map_err(|error| error.to_string())?;
    }
    super::print_json(&document, "\n")
}
