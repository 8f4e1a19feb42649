use super::*;

fn invoke(line: &str) -> Result<Invocation, Failure> {
    let words = line.split(' ').map(|word| if word == "''" { "" } else { word }.into());
    parse(std::iter::once("tare".into()).chain(words).collect())
}

fn verb(line: &str) -> (Global, Verb) {
    match invoke(line) {
        Ok(Invocation::Verb { global, verb }) => (global, *verb),
        other => panic!("{line}: {other:?}"),
    }
}

fn refusal(line: &str) -> String {
    match invoke(line) {
        Err(failure) => failure.line(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definitions_are_sound() {
    command_tree().debug_assert();
}

#[test]
fn what_clients_run_is_taken() {
    for line in [
        // containerd's shim through go-runc
        "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p --console-socket /s web",
        "--root /r --log /l --log-format json --rootless=true create --bundle /b --no-pivot --preserve-fds 3 web",
        "--root /r --log /l --log-format json --debug start web",
        "--root /r exec --process /p.json --console-socket /s --detach --pid-file /p web",
        "--root /r delete --force web",
        "--root /r kill --all web 9",
        "--root /r update --resources=- web",
        "--root /r ps --format json web",
        "--root /r ps --format table web -o pid,cmd --sort -pid",
        "list --format=json",
        "restore --image-path /i --work-path /w --detach --pid-file /p -no-subreaper --bundle /b web",
        "checkpoint --image-path /i --leave-running web",
        "run --bundle /b --no-subreaper web",
        "events --stats web",
        "features",
        // conmon
        "--systemd-cgroup --root=/r create --bundle /b --pid-file /p --no-new-keyring web",
        "exec --pid-file /p --process /f --detach --console-socket /s web",
        // podman, CRI-O
        "--log-format=json --log /l --cgroup-manager disabled start web",
        "--root /r --systemd-cgroup kill -a web KILL",
        "update --resources - web",
        "checkpoint --file-locks --image-path /i --work-path /w web",
        // crun's
        "create --no-subreaper web",
        "--criu /usr/sbin/criu state web",
    ] {
        verb(line);
    }
}

#[test]
fn flags_may_follow_the_name_but_not_for_exec_kill_and_ps() {
    let Verb::Run(run) = verb("run web -d -b /b --keep --pid-file /p").1 else { panic!() };
    assert!(run.detach && run.keep && run.container.id == "web");
    assert_eq!(run.container.bundle, Some("/b".into()));
    assert_eq!(run.container.pid_file, Some("/p".into()));
    let Verb::Exec(exec) = verb("exec -t -e A=1 --env B= -c CAP_KILL -u 1:2 -g 3 -g 4 web sh -c -t").1 else {
        panic!()
    };
    assert!(exec.tty && !exec.detach);
    assert_eq!(exec.args, ["sh", "-c", "-t"]);
    assert_eq!((exec.env, exec.cap), (vec!["A=1".into(), "B=".into()], vec!["CAP_KILL".to_owned()]));
    assert_eq!((exec.user, exec.additional_gids), (Some("1:2".into()), vec!["3".to_owned(), "4".into()]));
    let Verb::Ps(ps) = verb("ps web -ef --format").1 else { panic!() };
    assert_eq!(ps.options, ["-ef", "--format"]);
    let Verb::Kill(kill) = verb("kill web").1 else { panic!() };
    assert_eq!((kill.signal.as_str(), kill.all), ("SIGTERM", false));
}

#[test]
fn the_last_of_several_counts() {
    let (global, verb) = verb("--debug --debug --root /a --root /b run --detach -d -b /x --bundle /y web");
    assert_eq!(global.root, Some("/b".into()));
    let Verb::Run(run) = verb else { panic!() };
    assert_eq!(run.container.bundle, Some("/y".into()));
    assert!(run.detach);
}

#[test]
fn values_may_begin_with_a_hyphen_or_be_empty() {
    let Verb::Update(update) = verb("update --memory -1 --pids-limit -1 --cpuset-cpus '' web").1 else { panic!() };
    assert_eq!((update.memory, update.pids_limit), (Some("-1".into()), Some("-1".into())));
    assert_eq!(update.cpuset_cpus, None);
    let Verb::Create(create) = verb("create --bundle '' --console-socket= web").1 else { panic!() };
    assert_eq!((create.container.bundle, create.container.console_socket), (None, None));
}

#[test]
fn a_wrong_use_is_told_in_one_line() {
    let cases = [
        ("create", "create: the following required arguments were not provided: <ID>"),
        ("state a b", "state: unexpected argument 'b' found"),
        ("list x", "list: unexpected argument 'x' found"),
        ("--bogus list", "unexpected argument '--bogus' found"),
        ("run --bogus web", "run: unexpected argument '--bogus' found"),
        ("create --bundle", "create: flag needs an argument: --bundle"),
        ("--root", "flag needs an argument: --root"),
        (
            "create --preserve-fds -1 web",
            "create: invalid value '-1' for '--preserve-fds <N>': -1 is not in 0..=4294967295",
        ),
        ("frobnicate web", "unknown command \"frobnicate\""),
        ("help frobnicate", "unknown command \"frobnicate\""),
        ("kill web KILL extra", "kill: unexpected argument 'extra' found"),
    ];
    for (line, expected) in cases {
        assert_eq!(refusal(line), expected, "{line}");
    }
}

#[test]
fn help_and_version_are_texts() {
    for line in
        ["--help", "-h", "help", "help exec", "exec --help", "checkpoint --help", "restore -h", "--version", "-v"]
    {
        assert!(matches!(invoke(line), Ok(Invocation::Text(_))), "{line}");
    }
    let Ok(Invocation::Text(text)) = invoke("--help") else { panic!() };
    for verb in ["create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "update", "features"] {
        assert!(text.contains(&format!("\n  {verb} ")), "{verb}");
    }
    assert!(version().starts_with("tare version ") && version().ends_with("\nspec: 1.3.0\n"));
}

#[test]
fn checkpoint_and_restore_have_all_of_runcs_flags() {
    let Verb::Checkpoint(checkpoint) = verb(
        "checkpoint --image-path /i --work-path /w --parent-path ../p --leave-running --tcp-established \
         --tcp-skip-in-flight --link-remap --ext-unix-sk --shell-job --lazy-pages --status-fd 3 --page-server 1.2.3.4:5 \
         --file-locks --pre-dump --manage-cgroups-mode strict --empty-ns network --auto-dedup --network-lock skip web",
    )
    .1
    else {
        panic!()
    };
    let Checkpoint { id, criu, .. } = checkpoint;
    assert_eq!((id.as_str(), checkpoint.parent_path), ("web", Some("../p".into())));
    assert_eq!((checkpoint.status_fd, checkpoint.page_server.as_deref()), (Some(3), Some("1.2.3.4:5")));
    assert!(checkpoint.leave_running && checkpoint.tcp_skip_in_flight && checkpoint.link_remap && checkpoint.pre_dump);
    assert_eq!((criu.image_path, criu.work_path), (Some("/i".into()), Some("/w".into())));
    assert_eq!((criu.manage_cgroups_mode.as_deref(), criu.network_lock.as_deref()), (Some("strict"), Some("skip")));
    assert_eq!(criu.empty_ns, ["network"]);
    assert!(criu.tcp_established && criu.ext_unix_sk && criu.shell_job && criu.file_locks);
    assert!(criu.lazy_pages && criu.auto_dedup);

    let Verb::Restore(restore) = verb(
        "restore --console-socket /s --image-path /i --bundle /b --detach --pid-file /p -no-subreaper --no-pivot \
         --tcp-close --lsm-profile selinux:a:b --lsm-mount-context c --lazy-pages=false web",
    )
    .1
    else {
        panic!()
    };
    assert_eq!((restore.id.as_str(), restore.bundle), ("web", Some("/b".into())));
    assert_eq!((restore.console_socket, restore.pid_file), (Some("/s".into()), Some("/p".into())));
    assert!(restore.detach && restore.no_subreaper && restore.no_pivot && restore.tcp_close);
    let lsm = (restore.lsm_profile.as_deref(), restore.lsm_mount_context.as_deref());
    assert_eq!(lsm, (Some("selinux:a:b"), Some("c")));
    assert!(!restore.criu.lazy_pages);
    // What podman looks for.
    assert_eq!(refusal("restore --lsm-mount-context"), "restore: flag needs an argument: --lsm-mount-context");
}
