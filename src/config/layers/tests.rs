use crate::config::{Config, File, Mode, Origin, Sources};

/// A file in `/etc/site`, said from `/home`.
fn file(text: &str) -> Sources {
    let file = File { name: "site.conf".into(), folder: "/etc/site".into(), bytes: text.into() };
    Sources { file: Some(file), current_folder: "/home".into(), ..Sources::default() }
}

fn pair(name: &str, text: &str) -> (String, String) {
    (name.into(), text.into())
}

fn mistakes(sources: &Sources) -> Vec<String> {
    Config::resolve(sources).unwrap_err().iter().map(ToString::to_string).collect()
}

fn origin(line: usize) -> Origin {
    Origin::File { file: "site.conf".into(), line }
}

#[test]
fn nothing_said_is_the_welcome_page_by_a_single_worker() {
    let config = Config::resolve(&Sources::default()).unwrap();
    assert_eq!(config.static_content, []);
    assert_eq!(config.mode(), Mode::Single);
}

#[test]
fn the_stronger_layer_wins_and_is_remembered() {
    let mut sources = file("[server]\nsocketPort = 1\n[limits]\nmaxHeaders = 2\n[log]\nlevel = warn");
    sources.environment = vec![pair("REGROW_socketPort", "3"), pair("REGROW_maxHeaders", "4"), pair("HOME", "/")];
    sources.flags = vec![pair("socketPort", "5")];
    let config = Config::resolve(&sources).unwrap();
    assert_eq!((config.server.socket_port.value, config.limits.max_headers.value), (5, 4));
    assert_eq!(config.server.socket_port.origin, Origin::Flag("socketPort".into()));
    assert_eq!(config.limits.max_headers.origin, Origin::Environment("REGROW_maxHeaders".into()));
    assert_eq!(config.log.level.origin, origin(6));
    assert_eq!(config.log.error_log.origin, Origin::Default);
}

#[test]
fn a_section_may_come_twice_an_option_may_not() {
    let config = Config::resolve(&file("[server]\nsocketPort=1\n[log]\n[server]\nprocessPool=2")).unwrap();
    assert_eq!(config.mode(), Mode::ProcessPool(2));
    let found = mistakes(&file("[server]\nsocketPort=1\n[server]\nsocketPort=1"));
    assert_eq!(found, ["site.conf:4: socketPort = 1: already said at site.conf:2; remove one of the two lines"]);
}

#[test]
fn options_that_are_not_ours_yet_are_unknown() {
    for name in ["xmlRpc", "methodTimeout"] {
        let found = mistakes(&file(&format!("[server]\n{name} = 1")));
        assert_eq!(found, [format!("site.conf:2: {name} = 1: no such option; `regrow options` lists all there are")]);
    }
}

#[test]
fn a_near_name_is_hinted_at_in_every_layer() {
    let mut sources = file("[server]\nsocketprt = 80\n[sever]\nsocketPort = x");
    sources.environment = vec![pair("REGROW_levl", "info"), pair("REGROW_SOCKET_HOST", "x")];
    sources.flags = vec![pair("drainDelai", "1s")];
    let wanted = [
        "site.conf:2: socketprt = 80: no such option; did you mean socketPort?",
        "site.conf:3: [sever]: no such section; did you mean [server]?",
        "REGROW_SOCKET_HOST=x: no such option; did you mean REGROW_socketHost?",
        "REGROW_levl=info: no such option; did you mean REGROW_level?",
        "--drainDelai 1s: no such option; did you mean --drainDelay?",
    ];
    assert_eq!(mistakes(&sources), wanted);
}

#[test]
fn variables_that_a_service_manager_injects_are_not_ours() {
    let environment = vec![pair("REGROW_PORT", "tcp://10.0.0.1:80"), pair("REGROW_SERVICE_HOST", "10.0.0.1")];
    assert!(Config::resolve(&Sources { environment, ..Sources::default() }).is_ok());
}

#[test]
fn an_option_in_the_wrong_section_or_in_none_is_told_its_own() {
    let wanted = [
        "site.conf:1: level = info: stands before any section; put it below a line [log]",
        "site.conf:3: index = a: not an option of [server]; put it below [files]",
    ];
    assert_eq!(mistakes(&file("level = info\n[server]\nindex = a")), wanted);
}

#[test]
fn all_mistakes_come_at_once_in_the_order_in_which_they_were_said() {
    let mut sources = file("[server]\nsocketPort = x\nwhat\nprocessPool = 1\n[log]\nlevel =\n");
    sources.environment = vec![pair("REGROW_maxUri", "1")];
    sources.flags = vec![pair("index", "")];
    let places: Vec<_> = Config::resolve(&sources).unwrap_err().into_iter().map(|m| m.origin).collect();
    let variable = Origin::Environment("REGROW_maxUri".into());
    let flag = Origin::Flag("index".into());
    assert_eq!(places, [origin(2), origin(3), origin(4), origin(6), variable, flag]);
}

#[test]
fn what_is_wrong_does_not_hide_what_is_right() {
    let (understood, mistakes) = Config::understand(&file("[server]\nsocketHost = a b\nsocketPort = 9"));
    let config = understood.unwrap();
    assert_eq!((mistakes.len(), config.server.socket_port.value), (1, 9));
    assert_eq!(*config.server.socket_host, "localhost");
}

#[test]
fn a_comment_behind_a_value_is_explained() {
    let found = mistakes(&file("[server]\nsocketPort = 80 # http"));
    assert!(found[0].ends_with("(a comment stands on a line of its own)"), "{found:?}");
}

#[test]
fn conflicting_options_of_one_layer_name_each_other() {
    let found = mistakes(&file("[server]\nsocketFile = /run/s\nsocketPort = 80"));
    assert_eq!(found, ["site.conf:3: socketPort = 80: conflicts with socketFile (site.conf:2); keep one of them"]);
    let flags = vec![pair("socketPort", "80"), pair("socketFile", "s")];
    assert!(mistakes(&Sources { flags, ..Sources::default() })[0].contains("conflicts with"));
}

#[test]
fn of_conflicting_options_in_two_layers_the_stronger_holds() {
    let mut sources = file("[server]\nsocketFile = /run/s");
    sources.flags = vec![pair("socketPort", "80")];
    let config = Config::resolve(&sources).unwrap();
    assert_eq!((config.server.socket_file.value, config.server.socket_port.value), (None, 80));

    let mut sources = file("[server]\nsocketPort = 80");
    sources.environment = vec![pair("REGROW_socketFile", "s")];
    let config = Config::resolve(&sources).unwrap();
    assert_eq!(config.server.socket_file.value, Some("/home/s".into()));
    assert_eq!(config.server.socket_port.origin, Origin::Default);
}

const MODES: [&str; 4] = ["forking = 1", "threading = 1", "processPool = 4", "threadPool = 4"];

#[test]
fn any_two_modes_of_one_layer_name_each_other() {
    for first in MODES {
        for second in MODES.into_iter().filter(|second| *second != first) {
            let name = first.split_once(' ').unwrap().0;
            let wanted = format!("site.conf:3: {second}: conflicts with {name} (site.conf:2); keep one of them");
            assert_eq!(mistakes(&file(&format!("[server]\n{first}\n{second}"))), [wanted]);
        }
    }
    let environment = vec![pair("REGROW_threadPool", "4"), pair("REGROW_forking", "1")];
    let found = mistakes(&Sources { environment, ..Sources::default() });
    assert_eq!(found, ["REGROW_threadPool=4: conflicts with forking (REGROW_forking); keep one of them"]);
}

#[test]
fn all_modes_at_once_are_told_of_all_before_them_beside_other_mistakes() {
    let wanted = [
        "site.conf:3: forking = 1: conflicts with threadPool (site.conf:2); keep one of them",
        "site.conf:4: processPool = 1: a pool is two or more; \
         leave it out for a single worker, or say forking = 1 for a new process for each request",
        "site.conf:4: processPool = 1: \
         conflicts with threadPool (site.conf:2) and forking (site.conf:3); keep one of them",
        "site.conf:6: socketFile = s: conflicts with socketPort (site.conf:5); keep one of them",
    ];
    let said = "[server]\nthreadPool = 4\nforking = 1\nprocessPool = 1\nsocketPort = 0\nsocketFile = s";
    assert_eq!(mistakes(&file(said)), wanted);
}

#[test]
fn a_mode_that_is_off_conflicts_with_nothing() {
    let mode = |text: &str| Config::resolve(&file(&format!("[server]\n{text}"))).unwrap().mode();
    assert_eq!(mode("forking = 0\nthreading = 0\nthreadPool = 3"), Mode::ThreadPool(3));
    assert_eq!(mode("forking = 0\nthreading = 1"), Mode::Threading);
    assert_eq!(mode("forking = 0\nthreading = 0"), Mode::Single);
}

#[test]
fn a_mode_of_a_stronger_layer_overrules_all_of_the_weaker_ones() {
    // The file contradicts itself, which no longer matters.
    let mut sources = file("[server]\nforking = 1\nprocessPool = 2");
    sources.environment = vec![pair("REGROW_threading", "1")];
    assert_eq!(Config::resolve(&sources).unwrap().mode(), Mode::Threading);
    sources.flags = vec![pair("threadPool", "8")];
    let config = Config::resolve(&sources).unwrap();
    assert_eq!(config.mode(), Mode::ThreadPool(8));
    assert_eq!((config.server.forking.value, &config.server.forking.origin), (false, &Origin::Default));
}

#[test]
fn switching_a_mode_off_in_a_stronger_layer_leaves_the_others_alone() {
    let mut sources = file("[server]\nforking = 1");
    sources.flags = vec![pair("forking", "0")];
    assert_eq!(Config::resolve(&sources).unwrap().mode(), Mode::Single);
    sources.flags.push(pair("threadPool", "3"));
    assert_eq!(Config::resolve(&sources).unwrap().mode(), Mode::ThreadPool(3));

    let mut sources = file("[server]\nprocessPool = 4");
    sources.flags = vec![pair("forking", "0")];
    assert_eq!(Config::resolve(&sources).unwrap().mode(), Mode::ProcessPool(4));
}

#[test]
fn paths_of_the_file_are_relative_to_its_folder() {
    let config = Config::resolve(&file("[server]\nsocketFile = s\n[staticContent]\n/ = public")).unwrap();
    assert_eq!(config.server.socket_file.value, Some("/etc/site/s".into()));
    assert_eq!(config.static_content[0].path.to_str(), Some("/etc/site/public"));
}

#[test]
fn folder_is_the_root_and_wins_over_the_file() {
    let mut sources = file("[staticContent]\n/ = public\n/docs/ = \"my docs\"");
    sources.folder = Some("here".into());
    let config = Config::resolve(&sources).unwrap();
    let found: Vec<_> = config.static_content.iter().map(|s| (&*s.prefix, s.path.to_str().unwrap())).collect();
    assert_eq!(found, [("/docs", "/etc/site/my docs"), ("/", "/home/here")]);
    assert_eq!(config.static_content[1].origin, Origin::Argument);
}

#[test]
fn prefixes_are_plain_paths_said_once() {
    for (prefix, read) in
        [("/", "/"), ("/a", "/a"), ("/a/b/", "/a/b"), ("/ü x", "/ü x"), ("/.well-known", "/.well-known")]
    {
        let config = Config::resolve(&file(&format!("[staticContent]\n{prefix} = x"))).unwrap();
        assert_eq!(config.static_content[0].prefix, read);
    }
    for prefix in ["a", "//", "/a//", "/a//b", "/../a", "/a/.", "/a?b", "/a#b", "/%41"] {
        let found = mistakes(&file(&format!("[staticContent]\n{prefix} = x")));
        assert!(found[0].starts_with(&format!("site.conf:2: {prefix} = x: a prefix ")), "{found:?}");
    }
    let found = mistakes(&file("[staticContent]\n/a = x\n/a/ = y\n/b ="));
    let wanted = [
        "site.conf:3: /a/ = y: /a is already said at site.conf:2; remove one of the two lines",
        "site.conf:4: /b = : no folder or file; write /b = folder",
    ];
    assert_eq!(found, wanted);
}
