//! As a service of systemd's: it says when it is ready and how it is, serves sockets that are held for it, and reads its
//! configuration again. A real systemd does the same in `tests/systemd.sh`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use recurve_tests::authority::Authority;
use recurve_tests::client::{begin, connect, greedy};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::managed::{ask, deploy};
use recurve_tests::manager::{Manager, Sockets};
use recurve_tests::process::{agent_cli, run, until};
use recurve_tests::world::{self, path};
use rustix::process::Signal;

const ENDLESS: u32 = 131_072;

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_when_the_model_answers_and_says_how_it_is() {
    let manager = Manager::new();
    let daemon = Setup::new(&world::slow()).set("shutdown.grace", 0).tell(&manager).start_loading();
    manager.wait_for("STATUS=starting");
    manager.wait_for("READY=1");
    let client = connect(&daemon).await;
    let mut stream = begin(&client, greedy(&[2], ENDLESS)).await.unwrap();
    stream.until(1).await.unwrap();
    until(|| manager.wait_for("STATUS=serving ").ends_with(": 1 stream"));
    daemon.terminate();
    manager.wait_for("STOPPING=1");
    assert!(manager.wait_for("EXTEND_TIMEOUT_USEC=").parse::<u64>().unwrap() > 15_000_000);
    stream.rest().await.unwrap();
    assert!(daemon.ended().success());
}

#[test]
fn without_a_model_it_is_ready_too() {
    let (manager, state) = (Manager::new(), tempfile::tempdir().unwrap());
    let daemon = Setup::managed(state.path()).tell(&manager).start();
    assert!(manager.wait_for("STATUS=no model yet").contains("agent-cli deploy"));
    manager.wait_for("READY=1");
    deploy(&daemon, &world::tiny("f32"));
    manager.wait_for("STATUS=serving ");
    assert!(daemon.stop().success());
}

#[test]
fn why_it_cannot_start_is_in_the_status() {
    let manager = Manager::new();
    let none = Setup::new(Path::new("/nonexistent/bundle")).tell(&manager).allow("/nonexistent/bundle").attempt();
    assert!(none.is_none());
    until(|| manager.wait_for("STATUS=").contains("/nonexistent/bundle"));
    assert!(!manager.within(Duration::from_millis(100)).contains(&"READY=1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_while_it_rests_and_while_a_step_takes_long() {
    let manager = Manager::new();
    let daemon = Setup::new(&world::slow()).tell(&manager).env("WATCHDOG_USEC", 200_000).start();
    let fed = || manager.within(Duration::from_secs(2)).iter().filter(|line| *line == "WATCHDOG=1").count();
    assert!(fed() > 10, "idle");
    let prompt: Vec<u32> = (0..100_000).map(|i| 3 + i % 500).collect();
    let client = connect(&daemon).await;
    let reading = begin(&client, greedy(&prompt, 1)).await.unwrap();
    assert!(fed() > 10, "reading a long prompt");
    drop(reading);
    assert!(daemon.stop().success());
}

#[test]
fn sockets_that_are_held_for_it_outlive_it() {
    let sockets = Sockets::new();
    let start = || Setup::new(&world::tiny("f32")).sockets(&sockets).start();
    let generate = ["generate", "--tokens", "2,9", "--max-tokens", "3", "--format", "json", "--on"];
    let first = start();
    for address in [sockets.tcp(), sockets.unix()] {
        assert!(first.address.contains(&address), "{}", first.address);
        run(agent_cli(&generate).arg(address)).success();
    }
    assert!(first.stop().success());
    // Nobody serves, and nobody is refused.
    let waiting = [sockets.tcp(), sockets.unix()].map(|address| {
        let mut command = agent_cli(&generate);
        command.args([&address, "--timeout", "60s"]);
        std::thread::spawn(move || run(&mut command))
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.iter().all(|one| !one.is_finished()));
    let second = start();
    for answer in waiting {
        answer.join().unwrap().success();
    }
    assert!(second.stop().success());
    assert!(Path::new(sockets.unix().strip_prefix("unix:").unwrap()).exists());
}

fn level(daemon: &Daemon) -> String {
    ask(daemon, &["node", "describe", "--format", "json"]).json()["settings"]["log.level"].as_str().unwrap().to_owned()
}

#[test]
fn a_configuration_is_read_again_and_what_needs_a_restart_is_said() {
    let (manager, dir) = (Manager::new(), tempfile::tempdir().unwrap());
    let file = dir.path().join("recurved.toml");
    // Nobody listens at port 1 of this machine.
    let collector = |password| {
        format!("[telemetry]\nendpoint = \"http://127.0.0.1:1\"\nheaders = [\"authorization={password}\"]\n")
    };
    let write = |text: &str, password| fs::write(&file, text.to_owned() + &collector(password)).unwrap();
    write("[log]\nlevel = \"warn,recurved=info\"\n[engine]\nslots = 2\n", "one");
    let daemon = Setup::new(&world::tiny("f32"))
        .unix()
        .config(&file)
        .tell(&manager)
        .allow("needs a restart")
        .allow("nothing was changed")
        .allow("the collector")
        .start();
    manager.wait_for("READY=1");
    write("[log]\nlevel = \"info\"\n[engine]\nslots = 3\n", "two");
    daemon.signal(Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    assert_eq!(level(&daemon), "info");
    let named = daemon.lines("a setting was changed that needs a restart");
    assert_eq!((named.len(), &named[0]["key"]), (2, &"telemetry.headers".into()));
    assert_eq!((&named[1]["key"], &named[1]["value"]), (&"engine.slots".into(), &"3".into()));

    // A wrong one changes nothing, and is told whole.
    write("[log]\nlevel = \"debug\"\n[engine]\nslots = \"many\"\n", "two");
    daemon.signal(Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    assert_eq!(level(&daemon), "info");
    let wrong = daemon.wait_for("the configuration is wrong: nothing was changed");
    assert!(wrong["problems"].as_str().unwrap().contains("engine.slots"), "{wrong}");
    assert!(daemon.stop().success());
}

#[test]
fn renewed_certificates_are_read_without_a_restart() {
    let (manager, dir) = (Manager::new(), tempfile::tempdir().unwrap());
    let old = Authority::new(dir.path(), "old");
    let (own, operator) = (old.identity("gateway", "127.0.0.1"), old.identity("operator", "operator"));
    let clients = dir.path().join("clients.pem");
    fs::copy(&old.certificate, &clients).unwrap();
    let daemon = Setup::managed(&dir.path().join("state"))
        .tcp()
        .set("tls.certificate", path(&own.certificate))
        .set("tls.key", path(&own.key))
        .set("tls.clients", path(&clients))
        .tell(&manager)
        .allow("the files of TLS are wrong")
        .start();
    manager.wait_for("READY=1");
    let models = |authority: &Authority, who: &recurve_tests::authority::Identity| {
        let mut command = agent_cli(&["models", "--on", &daemon.address, "--ca", path(&authority.certificate)]);
        run(command.args(["--certificate", path(&who.certificate), "--key", path(&who.key)])).code
    };
    assert_eq!(models(&old, &operator), Some(0));
    let reload = || {
        daemon.signal(Signal::HUP);
        manager.wait_for("RELOADING=1");
        manager.wait_for("READY=1");
    };
    // What is damaged stays unread.
    fs::write(&clients, "no certificate").unwrap();
    reload();
    assert_eq!(models(&old, &operator), Some(0));
    // Another authority takes over.
    let new = Authority::new(dir.path(), "new");
    let (renewed, successor) = (new.identity("renewed", "127.0.0.1"), new.identity("successor", "operator"));
    for (from, to) in [(&new.certificate, &clients), (&renewed.certificate, &own.certificate), (&renewed.key, &own.key)]
    {
        fs::copy(from, to).unwrap();
    }
    reload();
    assert_eq!(models(&new, &successor), Some(0));
    assert_eq!(models(&old, &operator), Some(3));
    assert!(daemon.stop().success());
}
