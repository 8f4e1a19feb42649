//! `exec`.

use std::fs;

use tare_sandbox::container::ExecOptions;

use crate::args::Exec;
use crate::report::cause;
use crate::user;

impl Exec {
    /// The flags as options.
    ///
    /// # Errors
    /// One line that names the flag.
    pub(super) fn options(&self) -> Result<ExecOptions, String> {
        let process = match &self.process {
            Some(path) => {
                let text = fs::read(path).map_err(|error| format!("--process {path:?}: {}", cause(&error)))?;
                Some(tare_spec::decode::process(path, &text).map_err(|error| error.to_string())?)
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
        Ok(ExecOptions {
            process,
            args: self.args.clone(),
            tty: self.tty,
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user.as_deref().map(user::parse).transpose()?,
            additional_gids,
            caps: self.cap.clone(),
            no_new_privs: self.no_new_privs,
            apparmor: self.apparmor.clone(),
            process_label: self.process_label.clone(),
            detach: self.detach,
            console_socket: self.console_socket.clone(),
            pidfd_socket: self.pidfd_socket.clone(),
            pid_file: self.pid_file.clone(),
            preserve_fds: self.preserve_fds,
            ignore_paused: self.ignore_paused,
            cgroup: self.cgroup.clone(),
        })
    }
}
