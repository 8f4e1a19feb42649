//! `exec`.

use std::fs;

use tare_sandbox::container::ExecOptions;

use super::given;
use crate::args::Exec;
use crate::report::cause;
use crate::user;

impl Exec {
    /// The flags as options.
    ///
    /// # Errors
    /// One line that names the flag.
    pub(super) fn options(&self) -> Result<ExecOptions, String> {
        let process = match given(self.process.as_ref()) {
            Some(path) => {
                let text = fs::read(&path).map_err(|error| format!("--process {path:?}: {}", cause(&error)))?;
                Some(tare_spec::decode::process(&path, &text).map_err(|error| error.to_string())?)
            }
            None if self.args.is_empty() => return Err("no program given".into()),
            None => None,
        };
        if let Some(variable) = self.env.iter().find(|variable| variable.find('=').is_none_or(|equals| equals == 0)) {
            return Err(format!("--env {variable:?} is not NAME=value"));
        }
        let additional_gids = self.additional_gids.iter().flat_map(|list| list.split(','));
        let additional_gids = additional_gids
            .map(|gid| user::id(gid).map_err(|cause| format!("--additional-gids: {cause}")))
            .collect::<Result<_, _>>()?;
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(ExecOptions {
            process,
            args: self.args.clone(),
            tty: self.tty,
            env: self.env.clone(),
            cwd: given(self.cwd.as_ref()),
            user: text(&self.user).map(|word| user::parse(&word)).transpose()?,
            additional_gids,
            caps: self.cap.clone(),
            no_new_privs: self.no_new_privs,
            apparmor: text(&self.apparmor),
            process_label: text(&self.process_label),
            detach: self.detach,
            console_socket: given(self.console_socket.as_ref()),
            pidfd_socket: given(self.pidfd_socket.as_ref()),
            pid_file: given(self.pid_file.as_ref()),
            preserve_fds: self.preserve_fds,
            ignore_paused: self.ignore_paused,
            cgroup: self.cgroup.clone(),
        })
    }
}
