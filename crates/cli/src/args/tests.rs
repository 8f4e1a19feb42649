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
