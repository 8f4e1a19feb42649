//! What systemd is asked to do with a unit.

use super::bus::Connection;
use super::unit::Unit;
use super::value::Value;
use crate::{Error, Result};

/// A property of a unit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) value: Value,
}

impl Property {
    pub(super) fn new(name: &str, value: Value) -> Self {
        Self { name: name.to_owned(), value }
    }
}

fn list(properties: &[Property]) -> Value {
    let pairs = properties.iter().map(|property| Value::property(&property.name, property.value.clone()));
    Value::Array("(sv)".into(), pairs.collect())
}

/// Starts the unit, and waits until it runs: its process is inside then.
///
/// # Errors
/// Why systemd does not, or that it does not in time. A unit of that name that failed earlier is swept away; one that is
/// alive is somebody else's.
pub(super) fn start(connection: &mut Connection, unit: &Unit, properties: &[Property]) -> Result<()> {
    connection.listen_for_job(&unit.name);
    let arguments = [
        Value::str(&unit.name),
        Value::str("replace"),
        list(properties),
        // Auxiliary units.
        Value::Array("(sa(sv))".into(), Vec::new()),
    ];
    let answer = match connection.call("StartTransientUnit", &arguments) {
        Err(error) if is_named(&error, "UnitExists") => {
            // Left over by something that failed and that nobody looked at; a living one is not changed by this.
            connection.call("ResetFailedUnit", &[Value::str(&unit.name)])?;
            connection.call("StartTransientUnit", &arguments)
        }
        answer => answer,
    }?;
    await_done(connection, unit, "start", &answer.strings()?)
}

/// Stops the unit and waits until it has stopped; one that is gone has.
///
/// # Errors
/// Why it does not.
pub(super) fn stop(connection: &mut Connection, unit: &Unit) -> Result<()> {
    connection.listen_for_job(&unit.name);
    match connection.call("StopUnit", &[Value::str(&unit.name), Value::str("replace")]) {
        Ok(answer) => await_done(connection, unit, "stop", &answer.strings()?),
        Err(error) if is_named(&error, "NoSuchUnit") => Ok(()),
        Err(error) => Err(error),
    }
}

/// Changes properties until the unit is gone. systemd answers first and writes then: see [`Connection::ping`].
///
/// # Errors
/// Why systemd does not; then it has changed none of them.
pub(super) fn set(connection: &mut Connection, unit: &Unit, properties: &[Property]) -> Result<()> {
    let runtime = Value::Bool(true);
    connection.call("SetUnitProperties", &[Value::str(&unit.name), runtime, list(properties)]).map(drop)
}

fn await_done(connection: &mut Connection, unit: &Unit, what: &str, answer: &[String]) -> Result<()> {
    let failed = |cause: &str| Error::Refused(format!("systemd: {what} of {}: {cause}", unit.name));
    let job = answer.first().ok_or_else(|| failed("an answer without a job"))?;
    match connection.await_job(job) {
        Ok(result) if result == "done" => Ok(()),
        Ok(result) => Err(failed(&format!("the job ended as {result:?} (see journalctl)"))),
        Err(error) => Err(failed(&error.to_string())),
    }
}

/// Whether it is this error of systemd, `org.freedesktop.systemd1.*`.
fn is_named(error: &Error, name: &str) -> bool {
    error.to_string().ends_with(&format!("(org.freedesktop.systemd1.{name})"))
}
