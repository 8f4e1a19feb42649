//! Configurations that nobody wrote: thousands of random ones, valid and broken, the same ones every time. None may panic or
//! hang, and whatever is refused is refused in one line that names a field.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use serde_json::{Value, json};
use tare_sandbox::cgroup::outline::{Version, usual};
use tare_sandbox::container::CreateOptions;
use tare_sandbox::plan::Plan;
use tare_sandbox::plan::outline::outline;
use tare_spec::field::Shape;
use tare_spec::{Bundle, check, decode, template};

/// Knuth's MMIX generator; the upper bits are the good ones.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    fn one_of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len())]
    }
}

const TEXTS: &[&str] = &[
    "",
    "/",
    "a",
    "/a/b",
    "../x",
    "a=b",
    "=",
    "0",
    "0-3,7",
    "rslave",
    "CAP_KILL",
    "KILL",
    "net.ipv4.ip_forward",
    "2MB",
    "rbind",
    "rro",
    "mode=755",
    "tmpfs",
    "proc",
    "cgroup",
    "bind",
    "monotonic",
    "boottime",
    "é\u{1F980}",
    "\u{0}",
    "\r\n",
    "/proc",
    "/proc/self/attr",
    "1.0.2",
];

fn number(random: &mut Random) -> Value {
    match random.below(8) {
        0 => json!(0),
        1 => json!(1),
        2 => json!(-1),
        3 => json!(i64::MIN),
        4 => json!(u64::MAX),
        5 => json!(u32::MAX),
        6 => json!(random.below(100_000)),
        _ => json!(1.5),
    }
}

/// Something of this shape, or now and then of another.
fn value(random: &mut Random, shape: &Shape) -> Value {
    match shape {
        Shape::Object(members) => {
            let some: serde_json::Map<_, _> = members
                .iter()
                .filter(|_| random.below(3) == 0)
                .map(|(name, shape)| ((*name).to_owned(), shape.clone()))
                .collect::<Vec<_>>()
                .into_iter()
                .map(|(name, shape)| (name, value(random, &shape)))
                .collect();
            Value::Object(some)
        }
        Shape::Map(inner) => {
            let count = random.below(3);
            let name = |random: &mut Random| (*random.one_of(TEXTS)).to_owned();
            Value::Object((0..count).map(|_| (name(random), value(random, inner))).collect())
        }
        Shape::Array(inner) => (0..random.below(4)).map(|_| value(random, inner)).collect(),
        Shape::Word(words) => json!(random.one_of(words)),
        Shape::Scalar => match random.below(7) {
            0..=2 => json!(random.one_of(TEXTS)),
            3 => json!(random.below(2) == 0),
            _ => number(random),
        },
    }
}

/// Every place in a document.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let escape = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            let pointer = format!("{at}/{}", escape(name));
            found.push(pointer.clone());
            places(member, &pointer, found);
        }),
        Value::Array(elements) => elements.iter().enumerate().for_each(|(index, element)| {
            let pointer = format!("{at}/{index}");
            found.push(pointer.clone());
            places(element, &pointer, found);
        }),
        _ => {}
    }
}

/// Drops a member, or changes its type or its value.
fn mutate(random: &mut Random, document: &mut Value, shape: &Shape) {
    let mut all = Vec::new();
    places(document, "", &mut all);
    let pointer = random.one_of(&all).clone();
    let new = match random.below(6) {
        0 => Value::Null,
        1 => json!([]),
        2 => json!({}),
        3 => number(random),
        4 => json!(random.one_of(TEXTS)),
        _ => {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            if let Some(members) = document.pointer_mut(parent).and_then(Value::as_object_mut) {
                members.remove(&name.replace("~1", "/").replace("~0", "~"));
            }
            return;
        }
    };
    if random.below(3) == 0 {
        // A whole part of it, made up.
        if let Shape::Object(members) = shape {
            let names: Vec<&&str> = members.keys().collect();
            let name = **random.one_of(&names);
            document[name] = value(random, &members[name]);
            return;
        }
    }
    if let Some(place) = document.pointer_mut(&pointer) {
        *place = new;
    }
}

/// As loading does, without looking at files. The line that refuses it, if any.
fn plan(text: &str) -> Option<String> {
    let path = Path::new("config.json");
    let refused = |error: tare_spec::Error| Some(error.to_string());
    let spec = match decode::spec(path, text.as_bytes()) {
        Ok(spec) => spec,
        Err(error) => return refused(error),
    };
    // The two ways to check agree on whether there is anything to say.
    let first = check::spec(&spec);
    assert_eq!(first.clone().err(), check::all(&spec).into_iter().next());
    if let Err(finding) = check::text(text.as_bytes()).and(first) {
        assert!(finding.pointer.is_empty() || finding.pointer.starts_with('/'));
        return Some(format!("{}: {}", finding.pointer.escape_debug(), finding.cause));
    }
    let config = text.as_bytes().to_vec();
    let mut bundle = Bundle { dir: "/bundle".into(), rootfs: "/bundle/rootfs".into(), spec, config };
    let plan = match Plan::new("id", &mut bundle, &CreateOptions::default()) {
        Ok(plan) => plan,
        Err(error) => return Some(error.to_string()),
    };
    let path = bundle.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    for version in [Version::V1, Version::V2] {
        match outline(&plan, &bundle, &usual(version, path, "id")) {
            Ok(actions) => assert!(actions.len() > 10),
            Err(error) => return Some(error.to_string()),
        }
    }
    None
}

fn judge(line: Option<String>, document: &Value) -> bool {
    let Some(line) = line else { return true };
    assert!(!line.is_empty() && !line.contains('\n'), "{line:?} of {document}");
    let names_a_field = ["/", "process", "linux", "mounts", "hooks", "root", "hostname"];
    let rest = line.strip_prefix("config.json:").unwrap_or(&line);
    let named = names_a_field.iter().any(|field| rest.contains(field))
        || rest.contains("missing field")
        || rest.contains("invalid type");
    assert!(named, "{line} of {document}");
    false
}

#[test]
fn random_changes_of_good_configurations_end_in_a_plan_or_in_one_line() {
    let shape = Shape::config();
    let mut random = Random(1);
    let mut good = 0;
    for round in 0..6000 {
        let cgroups = if round % 2 == 0 { template::Cgroups::Legacy } else { template::Cgroups::Unified };
        let mut document = template::document(cgroups);
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut document, &shape);
        }
        good += usize::from(judge(plan(&document.to_string()), &document));
    }
    // Neither all good nor all broken, or the test shows nothing.
    assert!((300..5700).contains(&good), "{good} of 6000 were good");
}

#[test]
fn configurations_made_of_nothing_but_the_types_end_the_same_way() {
    let shape = Shape::config();
    let mut random = Random(2);
    for _ in 0..3000 {
        let document = value(&mut random, &shape);
        judge(plan(&document.to_string()), &document);
    }
}

#[test]
fn what_check_tells_never_fails_and_finds_what_loading_finds() {
    let shape = Shape::config();
    let mut random = Random(3);
    let dir = std::env::temp_dir().join(format!("tare-random-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("rootfs")).unwrap();
    for _ in 0..1500 {
        let mut document = template::document(template::Cgroups::Legacy);
        for _ in 0..=random.below(3) {
            mutate(&mut random, &mut document, &shape);
        }
        std::fs::write(dir.join("config.json"), document.to_string()).unwrap();
        let examined = tare_spec::examine::bundle(&dir).unwrap();
        let loaded = Bundle::load(&dir);
        assert_eq!(examined.is_usable(), loaded.is_ok(), "{:?} {:?} {document}", examined.remarks, loaded.err());
        assert!(examined.remarks.iter().all(|remark| !remark.to_string().contains('\n')));
    }
    std::fs::remove_dir_all(dir).unwrap();
}
