use super::*;

fn command() -> Command {
    let flag = |name: &'static str, letter| Arg::new(name).long(name).short(letter);
    Command::new("x")
        .arg(flag("detach", 'd').action(ArgAction::SetTrue))
        .arg(Arg::new("no-subreaper").long("no-subreaper").action(ArgAction::SetTrue))
        .arg(flag("bundle", 'b'))
        .arg(flag("env", 'e').action(ArgAction::Append))
        .arg(Arg::new("id"))
}

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').filter(|word| !word.is_empty()).map(|word| if word == "''" { "" } else { word }.into()).collect()
}

#[test]
fn flags_become_what_clap_expects() {
    let cases = [
        ("-no-subreaper web", Stop::Never, "--no-subreaper web"),
        ("--no-subreaper=false web", Stop::Never, "web"),
        ("-d=1 -detach=T web", Stop::Never, "--detach --detach web"),
        ("web -bundle /b -d", Stop::Never, "web --bundle=/b --detach"),
        ("-b=/b web", Stop::Never, "--bundle=/b web"),
        ("--bundle=/b=c web", Stop::Never, "--bundle=/b=c web"),
        ("--bundle '' --bundle= web", Stop::Never, "web"),
        ("--env '' web", Stop::Never, "--env= web"),
        ("--bundle -d web", Stop::Never, "--bundle=-d web"),
        ("-e A=1 -e B=-2 web", Stop::Never, "--env=A=1 --env=B=-2 web"),
        ("--other -o web", Stop::Never, "--other -o web"),
        ("- web", Stop::Never, "- web"),
        ("-d -- -x", Stop::Never, "--detach -- -x"),
        ("-h", Stop::Never, "--help"),
        ("-help", Stop::Never, "--help"),
        ("-d web ls -d --env", Stop::AfterFirst, "--detach -- web ls -d --env"),
        ("web -- ls -d", Stop::AfterFirst, "-- web ls -d"),
        ("web ls -- -d", Stop::AfterFirst, "-- web ls -- -d"),
        ("-- web ls", Stop::AfterFirst, "-- web ls"),
        ("", Stop::Never, ""),
    ];
    for (line, stop, expected) in cases {
        assert_eq!(normalize(&command(), &words(line), stop), Ok(words(expected)), "{line}");
    }
}

#[test]
fn a_flag_without_its_value_or_with_a_wrong_one_is_named() {
    for line in ["web --bundle", "web -b", "-bundle"] {
        assert_eq!(
            normalize(&command(), &words(line), Stop::Never),
            Err("flag needs an argument: --bundle".into()),
            "{line}"
        );
    }
    let wrong = normalize(&command(), &words("--detach=maybe web"), Stop::Never);
    assert_eq!(wrong, Err("invalid boolean value \"maybe\" for --detach".into()));
}

#[test]
fn the_verb_is_the_first_word_that_is_neither_flag_nor_value() {
    let cases = [
        ("-d --bundle create create --bundle /b", "--detach --bundle=create", "create --bundle /b"),
        ("create -d", "", "create -d"),
        ("-d", "--detach", ""),
        ("--other create", "--other", "create"),
    ];
    for (line, flags, rest) in cases {
        assert_eq!(split_at_verb(&command(), &words(line)), Ok((words(flags), words(rest))), "{line}");
    }
}

#[test]
fn bytes_that_are_no_utf8_pass() {
    let argument = OsString::from_vec(b"--bundle=/\xff".to_vec());
    assert_eq!(normalize(&command(), std::slice::from_ref(&argument), Stop::Never), Ok(vec![argument]));
    let odd = OsString::from_vec(b"-\xff".to_vec());
    assert_eq!(normalize(&command(), std::slice::from_ref(&odd), Stop::Never), Ok(vec![odd]));
}
