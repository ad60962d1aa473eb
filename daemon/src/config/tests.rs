use std::io::Write as _;

use super::*;

fn flags() -> Flags {
    Flags { bundle: Some("b".into()), ..Flags::default() }
}

fn owned(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_text(toml: &str, variables: &[(&str, &str)], flags: &Flags) -> Loaded {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    load_from(flags, Some(file.path()), &owned(variables), &[])
}

fn source<'a>(loaded: &'a Loaded, key: &str) -> &'a Source {
    &loaded.report.values.iter().find(|entry| entry.key == key).unwrap().source
}

#[test]
fn the_defaults_are_valid_and_every_key_is_read_once() {
    let loaded = load_from(&flags(), None, &[], &[]);
    assert!(loaded.report.ok, "{}", loaded.report.text());
    let read: Vec<_> = loaded.report.values.iter().map(|entry| entry.key).collect();
    let declared: Vec<_> = keys::KEYS.iter().map(|key| key.path).collect();
    assert_eq!(read, declared);
    let settings = loaded.settings.unwrap();
    assert_eq!(settings.listen, ["127.0.0.1:50051".parse().unwrap()]);
    assert_eq!(settings.engine.slots, 4);
    assert_eq!(settings.limits.max_message_bytes, 4 << 20);
}

#[test]
fn the_later_source_wins_and_is_told() {
    let toml = "listen = [\"127.0.0.1:1\"]\n[engine]\nthreads = 1\nslots = 2\nqueue = 3\n[log]\nlevel = \"warn\"";
    let variables = [("RECURVE_ENGINE__SLOTS", "7"), ("RECURVE_LOG__LEVEL", "debug"), ("PATH", "/bin")];
    let given = Flags { log: Some("trace".into()), ..flags() };
    let loaded = load_text(toml, &variables, &given);
    assert!(loaded.report.ok, "{}", loaded.report.text());
    assert!(matches!(source(&loaded, "engine.threads"), Source::File(_)));
    assert_eq!(source(&loaded, "engine.slots"), &Source::Environment("RECURVE_ENGINE__SLOTS".into()));
    assert_eq!(source(&loaded, "log.level"), &Source::Flag("--log"));
    assert_eq!(source(&loaded, "log.format"), &Source::Default);
    let settings = loaded.settings.unwrap();
    assert_eq!((settings.engine.threads, settings.engine.slots, settings.engine.queue), (1, 7, 3));
    assert_eq!(settings.listen, ["127.0.0.1:1".parse().unwrap()]);
}

#[test]
fn lists_come_from_variables_and_repeated_flags() {
    let loaded = load_from(&flags(), None, &owned(&[("RECURVE_LISTEN", "127.0.0.1:0, unix:/run/x")]), &[]);
    assert_eq!(loaded.settings.unwrap().listen.len(), 2);
    let given = Flags { listen: vec!["127.0.0.1:0".into(), "127.0.0.1:0".into()], ..flags() };
    assert_eq!(load_from(&given, None, &[], &[]).settings.unwrap().listen.len(), 2);
}

#[test]
fn all_problems_are_reported_together() {
    let toml = "listen = \"nowhere\"\nbundel = \"x\"\n[engine]\nthreads = -1\nslots = \"many\"\n[limits]\nmax_tokens = 0\n\
                [log]\nlevel = \"loud\"\nformat = \"xml\"\n[moon]\nphase = 1";
    let loaded = load_text(toml, &[("RECURVE_ENGINE__SPINNING", "perhaps"), ("RECURVE_ENGINE__THREAD", "1")], &flags());
    let text = loaded.report.text();
    for (key, words) in [
        ("listen", "IP:PORT"),
        ("bundel", "did you mean bundle?"),
        ("engine.threads", "from 0 to 1024"),
        ("engine.slots", "from 1 to 256"),
        ("engine.spinning", "true or false"),
        ("limits.max_tokens", "from 1 to"),
        ("log.level", "debug"),
        ("log.format", "text or json"),
        ("moon.phase", "unknown key"),
    ] {
        let problem = loaded.report.problems.iter().find(|p| p.key.as_deref() == Some(key));
        assert!(problem.is_some_and(|p| p.message.contains(words)), "{key}: {text}");
    }
    let variable = loaded.report.problems.iter().find(|p| p.key.is_none()).unwrap().to_string();
    assert_eq!(variable, "environment RECURVE_ENGINE__THREAD: unknown variable; did you mean RECURVE_ENGINE__THREADS?");
    assert_eq!(loaded.report.problems.len(), 10, "{text}");
    assert!(text.contains("environment RECURVE_ENGINE__SPINNING"), "{text}");
    assert!(loaded.settings.is_none());
}

#[test]
fn without_a_bundle_there_is_a_state_directory() {
    let settings = load_from(&Flags::default(), None, &[], &[]).settings.unwrap();
    assert_eq!((settings.bundle, settings.state_dir), (None, "/var/lib/recurve".into()));
}

#[test]
fn a_section_cannot_be_a_value() {
    let loaded = load_text("engine = 3", &[], &flags());
    assert!(loaded.report.text().contains("is a section"), "{}", loaded.report.text());
}

#[test]
fn an_empty_section_that_does_not_exist_is_reported() {
    let text = load_text("[engin]\n[engine.x]\n[limits]", &[], &flags()).report.text();
    for section in ["engin", "engine.x"] {
        assert!(text.contains(&format!("{section} ")), "{section}: {text}");
    }
    assert!(
        text.contains(
            "the sections are tls, trust, discovery, engine, limits, shutdown, deploy, probation, verify, registry, telemetry, log"
        ),
        "{text}"
    );
    assert!(load_text("[engine]\n[limits]", &[], &flags()).report.ok);
}

#[test]
fn connections_are_not_logged_frame_by_frame_unless_they_are_named() {
    use tracing::Level;
    let enabled = |text: &str, target, level| read::log_filter(text).unwrap().would_enable(target, &level);
    assert!(enabled("debug", "recurved::node", Level::DEBUG) && !enabled("debug", "h2::codec", Level::DEBUG));
    assert!(enabled("debug", "h2::codec", Level::INFO) && !enabled("warn", "h2::codec", Level::INFO));
    assert!(enabled("info,h2=trace", "h2::codec", Level::TRACE));
}

#[test]
fn the_collectors_headers_are_shown_without_their_values() {
    let variables = owned(&[("RECURVE_TELEMETRY__HEADERS", "authorization=Bearer secret")]);
    let report = load_from(&flags(), None, &variables, &[]).report;
    assert!(!report.text().contains("secret") && !report.json().contains("secret"), "{}", report.text());
    let report =
        load_from(&flags(), None, &owned(&[("RECURVE_TELEMETRY__ENDPOINT", "http://me:secret@c:1")]), &[]).report;
    assert!(report.text().contains("must hold no password"), "{}", report.text());
}

#[test]
fn pairs_have_names() {
    let resource = |text: &str| load_from(&flags(), None, &owned(&[("RECURVE_TELEMETRY__RESOURCE", text)]), &[]);
    let settings = resource("site=north, rack=a=b").settings.unwrap();
    let expected = [("site", "north"), ("rack", "a=b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(settings.telemetry.resource, expected);
    for wrong in ["[\"site=north\"]", "=north", "north"] {
        let problems = resource(wrong).report.text();
        assert!(problems.contains("is no NAME=VALUE"), "{wrong}: {problems}");
    }
}

#[test]
fn registries_are_hosts_with_or_without_a_port() {
    let variables = owned(&[("RECURVE_REGISTRY__PLAIN_HTTP", "Registry.local:5000, 10.0.0.1")]);
    let settings = load_from(&flags(), None, &variables, &[]).settings.unwrap();
    assert_eq!(settings.registry.plain_http, ["registry.local:5000", "10.0.0.1"]);
    let wrong = load_text("[registry]\nplain_http = [\"http://registry.local\"]", &[], &flags());
    assert!(wrong.report.text().contains("is no registry; allowed: a list of HOST"), "{}", wrong.report.text());
    assert!(load_text("[registry]\nplain_http = \"registry.local\"", &[], &flags()).settings.is_none());
}

#[test]
fn variables_of_other_programs_are_left_alone() {
    let variables =
        ["RECURVE_CONFIG", "RECURVE_ON", "RECURVE_FLEET", "RECURVE_BIN_DIR", "RECURVE_NODE_MODULES", "RECURVE_PYTHON"]
            .map(|name| (name, "x"));
    let loaded = load_text("", &variables, &flags());
    assert!(loaded.report.ok, "{}", loaded.report.text());
    assert!(!load_text("", &[("RECURVE_ONE", "x")], &flags()).report.ok);
}

#[test]
fn variables_that_the_tests_export_are_left_alone() {
    let script = include_str!("../../../tests/run.sh");
    let exported =
        script.lines().filter_map(|line| line.trim().strip_prefix("export ")).flat_map(str::split_whitespace);
    let names = exported.map(|word| word.split('=').next().unwrap());
    let names: Vec<&str> = names.filter(|name| name.starts_with("RECURVE_") && !name.contains("__")).collect();
    assert!(names.contains(&"RECURVE_BIN_DIR") && names.contains(&"RECURVE_TOKENIZER"), "{names:?}");
    for name in names {
        let loaded = load_text("", &[(name, "x")], &flags());
        assert!(loaded.report.ok, "{name}: {}", loaded.report.text());
    }
}

#[test]
fn a_file_that_is_not_toml_is_named_with_the_line() {
    let loaded = load_text("[engine\nthreads", &[], &flags());
    assert!(loaded.report.text().contains("line 1"), "{}", loaded.report.text());
    let missing = load_from(&flags(), Some(Path::new("/nonexistent/recurved.toml")), &[], &[]);
    assert!(missing.report.text().contains("/nonexistent/recurved.toml: cannot be read"), "{}", missing.report.text());
}

#[test]
fn open_addresses_need_plain_words() {
    let open = Flags { listen: vec!["0.0.0.0:50051".into()], ..flags() };
    let refused = load_from(&open, None, &[], &[]);
    assert!(refused.report.text().contains("insecure = true"), "{}", refused.report.text());
    let told = Flags { insecure: true, ..open };
    assert!(load_from(&told, None, &[], &[]).report.ok);
}

#[test]
fn json_holds_the_same() {
    let json: serde_json::Value = serde_json::from_str(&load_from(&flags(), None, &[], &[]).report.json()).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["values"][0], serde_json::json!({"key": "bundle", "value": "b", "source": "flag --bundle"}));
}

#[test]
fn the_library_variable_of_onnx_runtime_yields_to_the_file() {
    let variables = [("ORT_DYLIB_PATH", "/a.so")];
    let alone = load_text("", &variables, &flags());
    assert_eq!(source(&alone, "engine.library"), &Source::Environment("ORT_DYLIB_PATH".into()));
    assert_eq!(alone.settings.unwrap().engine.library, Some("/a.so".into()));
    let file = load_text("[engine]\nlibrary = \"/b.so\"", &variables, &flags());
    assert_eq!(file.settings.unwrap().engine.library, Some("/b.so".into()));
}

#[test]
fn log_filters_are_levels_and_targets() {
    for (text, valid) in [
        ("info", true),
        ("WARN", true),
        ("off", true),
        ("info,recurved::grpc=debug, hyper=off", true),
        ("", false),
        ("loud", false),
        ("3", false),
        ("info,", false),
        ("=info", false),
        ("recurved=loud", false),
    ] {
        let given = Flags { log: Some(text.into()), ..flags() };
        assert_eq!(load_from(&given, None, &[], &[]).report.ok, valid, "{text:?}");
    }
}

#[test]
fn sockets_of_systemd_are_served_whatever_else_is() {
    let held = |text: &str| Held::new(text.parse().unwrap(), false);
    let inherited = ["127.0.0.1:7", "unix:/run/a.sock"].map(held);
    let loaded = load_from(&flags(), None, &[], &inherited);
    assert_eq!(source(&loaded, "listen"), &Source::Sockets);
    assert_eq!(loaded.settings.unwrap().listen, inherited.clone().map(|held| held.address));
    // What the configuration names besides is bound here; what systemd holds is not bound again.
    let listen = owned(&[("RECURVE_LISTEN", "127.0.0.1:8,unix:/run/a.sock")]);
    let settings = load_from(&flags(), None, &listen, &inherited).settings.unwrap();
    let expected = ["127.0.0.1:8", "127.0.0.1:7", "unix:/run/a.sock"].map(|text| text.parse().unwrap());
    assert_eq!(settings.listen, expected);
    // What is wider than a socket of systemd's cannot be bound beside it.
    let wider = owned(&[("RECURVE_LISTEN", "0.0.0.0:7"), ("RECURVE_INSECURE", "true")]);
    let report = load_from(&flags(), None, &wider, &inherited).report.text();
    assert!(report.contains("systemd's socket holds 127.0.0.1:7"), "{report}");
    // They open nothing that the configuration's own addresses may not.
    let open = [held("0.0.0.0:7")];
    let refused = load_from(&flags(), None, &[], &open);
    let report = refused.report.text();
    assert!(report.contains("systemd's sockets: other machines can reach 0.0.0.0:7 of recurved.socket"), "{report}");
    // One for version 6 alone leaves what comes by version 4 to the configuration's own.
    let six = [Held::new("[::]:7".parse().unwrap(), true)];
    let both = owned(&[("RECURVE_LISTEN", "0.0.0.0:7,[::1]:7"), ("RECURVE_INSECURE", "true")]);
    let settings = load_from(&flags(), None, &both, &six).settings.unwrap();
    assert_eq!(settings.listen, ["0.0.0.0:7", "[::]:7"].map(|text| text.parse().unwrap()));
    let any = owned(&[("RECURVE_LISTEN", "[::]:7"), ("RECURVE_INSECURE", "true")]);
    let report = load_from(&flags(), None, &any, &six).report.text();
    assert!(report.contains("systemd's socket holds [::]:7 for IPv6 alone"), "{report}");
    for (listen, held) in [("[::]:7,0.0.0.0:7", &six[..]), ("[::]:7", &[held("0.0.0.0:7"), six[0].clone()])] {
        let both = owned(&[("RECURVE_LISTEN", listen), ("RECURVE_INSECURE", "true")]);
        let report = load_from(&flags(), None, &both, held).report;
        assert!(report.ok, "{listen}: {}", report.text());
    }
    let insecure = owned(&[("RECURVE_INSECURE", "true")]);
    assert!(load_from(&flags(), None, &insecure, &six).report.ok);
}

#[test]
fn only_the_service_s_own_file_is_read_with_its_sockets() {
    let with = |config: Option<&str>| Flags { config: config.map(Into::into), ..Flags::default() };
    assert!(is_of_service(&with(None)) && is_of_service(&with(Some("/etc/recurve/recurved.toml"))));
    assert!(!is_of_service(&with(Some("recurved.toml"))));
    // By whichever name.
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("recurved.toml"), dir.path().join("link"));
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(is_same_file(&link, &file) && !is_same_file(&link, &dir.path().join("other")));
}

#[test]
fn sockets_that_cannot_be_served_are_problems_beside_all_others() {
    let open = [Held::new("0.0.0.0:7".parse().unwrap(), false)];
    let report = load_from(&flags(), None, &[], &open).refusing(&["@a".to_owned(), "@b".to_owned()]).report;
    assert_eq!((report.ok, report.problems.len()), (false, 3));
    let right = load_from(&flags(), None, &[], &[]).refusing(&[]);
    assert!(right.report.ok && right.settings.is_some());
}

#[test]
fn a_variable_in_small_letters_is_not_overlooked() {
    let variables = owned(&[("recurve_engine__threads", "2"), ("recurve_other", "x"), ("Recurve_Bundle", "b")]);
    let report = load_from(&flags(), None, &variables, &[]).report;
    assert!(!report.ok && report.problems.len() == 2, "{}", report.text());
    let text = report.text();
    assert!(
        text.contains("environment recurve_engine__threads: unknown variable; did you mean RECURVE_ENGINE__THREADS?"),
        "{text}"
    );
}

#[test]
fn paths_that_are_not_utf_8_stay_as_they_are() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let path = |bytes: &'static [u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let given = Flags {
        bundle: Some(path(b"/a\xffb")),
        state_dir: Some(path(b"/s\xfe")),
        listen: vec![OsStr::from_bytes(b"unix:/run/\xff.sock").to_owned()],
        ..Flags::default()
    };
    let variable = |name: &str, bytes: &[u8]| (name.to_owned(), os_text::encode(OsStr::from_bytes(bytes)));
    let variables = [
        variable("RECURVE_ENGINE__LIBRARY", b"/l\xff.so"),
        variable("RECURVE_TELEMETRY__DIR", b"/t\xff"),
        variable("RECURVE_REGISTRY__AUTH_FILE", b"/k\xff"),
    ];
    let loaded = load_from(&given, None, &variables, &[]);
    let settings = loaded.settings.unwrap_or_else(|| panic!("{}", loaded.report.text()));
    assert_eq!(settings.bundle, Some(path(b"/a\xffb")));
    assert_eq!(settings.state_dir, path(b"/s\xfe"));
    assert_eq!(settings.listen, [Address::Unix(path(b"/run/\xff.sock"))]);
    assert_eq!(settings.engine.library, Some(path(b"/l\xff.so")));
    assert_eq!(settings.telemetry.dir, Some(path(b"/t\xff")));
    assert_eq!(settings.registry.auth_file, Some(path(b"/k\xff")));
    // They are shown so that every byte can be read.
    assert!(loaded.report.text().contains(r#"bundle = "/a\\xFFb""#), "{}", loaded.report.text());
    let listen = [variable("RECURVE_LISTEN", b"127.0.0.1:7, unix:/run/\xff.sock")];
    let settings = load_from(&flags(), None, &listen, &[]).settings.unwrap();
    assert_eq!(settings.listen, ["127.0.0.1:7".parse().unwrap(), Address::Unix(path(b"/run/\xff.sock"))]);
    // What is no path says so, with its value.
    let wrong = load_from(&flags(), None, &[variable("RECURVE_ENGINE__THREADS", b"\xff")], &[]).report.text();
    assert!(wrong.contains(r#"engine.threads = "\\xFF""#) && wrong.contains("from 0 to 1024"), "{wrong}");
    let wrong = load_text("bundle = \"a\\u0000b\"", &[], &Flags::default()).report.text();
    assert!(wrong.contains("must not hold a zero byte"), "{wrong}");
}
