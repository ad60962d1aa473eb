//! Machines as files: `trees/README.md` says where these come from.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use recurve_telemetry::catalogue::{find, name};
use tempfile::TempDir;

use super::*;

fn tree(machine: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/telemetry/host/trees").join(machine)
}

/// A machine whose files may be changed.
struct Changing(TempDir);

impl Changing {
    fn of(machine: &str) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        copy_folder(&tree(machine), copy.0.path());
        copy
    }

    fn host(&self) -> Host {
        Host::new(self.0.path(), Path::new("/"))
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.path().join(file), text).unwrap();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), to).unwrap();
        } else if kind.is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn readings(machine: &str) -> Readings {
    Host::new(&tree(machine), Path::new("/")).read()
}

/// `id = value`, in order of the machine.
fn told(list: &[Measured]) -> Vec<String> {
    list.iter().map(|measured| format!("{} = {:.3}", measured.sensor.id, measured.value)).collect()
}

fn alarms(readings: &Readings) -> Vec<(&str, bool)> {
    readings.alarms.iter().map(|alarm| (alarm.name, alarm.on)).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn a_raspberry_pi_5_is_read() {
    let now = readings("raspberry-pi-5");
    let ids = ["thermal/cpu-thermal = 52.350", "rp1_adc@1f000c8000.adc/temp1 = 54.211"];
    assert_eq!(told(&now.temperatures), ids, "the chip that repeats the zone must be left out");
    assert_eq!(now.temperatures[0].sensor.location.as_deref(), Some("cpu"));
    assert_eq!(told(&now.cpu_speeds), ["cpufreq/policy0 = 2400000000.000"]);
    assert_eq!(now.cpu_speeds[0].sensor.name, "cpu0-3");
    assert_eq!(told(&now.voltages)[0], "rp1_adc@1f000c8000.adc/in1 = 1.466");
    assert_eq!(now.voltages.len(), 4);
    assert_eq!(now.power, []);
    let quiet = ["frequency-capped", "soft-temperature-limit", "throttled", "under-voltage"].map(|name| (name, false));
    assert_eq!(alarms(&now), quiet);

    assert!(close(now.cpu.iter().map(|(_, share)| share).sum(), 1.0));
    assert!(now.cpu.contains(&("idle", 340_000.0 / 390_000.0)) && now.cpu.contains(&("interrupt", 400.0 / 390_000.0)));
    let memory = now.memory.unwrap();
    assert_eq!(memory.total, 8_244_320 << 10);
    assert_eq!(memory.available, 7_400_000 << 10);
    assert_eq!(memory.states().iter().map(|(_, bytes)| bytes).sum::<u64>(), memory.total);
    let names: Vec<&str> = now.network.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["eth0", "wlan0"]);
    assert_eq!((now.network[0].received, now.network[0].sent), (0, 0), "what went before is not counted");
    assert_eq!(now.process_memory, Some(131_072 * procfs::page_size()));
    let ticks = procfs::ticks_per_second() as f64;
    assert_eq!(now.process_cpu, [("user", 12_345.0 / ticks), ("system", 678.0 / ticks)]);
    let filesystem = now.filesystem.unwrap();
    assert_eq!((filesystem.mountpoint.as_path(), filesystem.kind.as_str()), (Path::new("/"), "ext4"));
    assert!(filesystem.used > 0);
}

#[test]
fn a_hot_raspberry_pi_4_complains() {
    let now = readings("raspberry-pi-4");
    // Bits 1 to 3, and the voltage by its own chip.
    let loud = ["frequency-capped", "soft-temperature-limit", "throttled", "under-voltage"].map(|name| (name, true));
    assert_eq!(alarms(&now), loud);
    assert_eq!(told(&now.temperatures), ["thermal/cpu-thermal = 81.303"]);
}

#[test]
fn what_a_raspberry_pi_complained_of_is_over_when_it_says_so() {
    let pi = Changing::of("raspberry-pi-4");
    let mut host = pi.host();
    let word = "sys/devices/platform/soc/soc:firmware/get_throttled";
    pi.write("sys/devices/platform/soc/soc:firmware/raspberrypi-hwmon/hwmon/hwmon1/in0_lcrit_alarm", "0\n");
    pi.write(word, "f0000\n");
    assert!(host.read().alarms.iter().all(|alarm| !alarm.on), "bits of the past are no alarm");
    pi.write(word, "0x4\n");
    assert_eq!(alarms(&host.read()).iter().filter(|(_, on)| *on).collect::<Vec<_>>(), [&("throttled", true)]);
    pi.write(word, "what?\n");
    assert_eq!(alarms(&host.read()), [("under-voltage", false)], "only the chip is left to tell");
}

#[test]
fn a_jetson_orin_is_read() {
    let now = readings("jetson-orin");
    let zones = ["cpu", "gpu", "soc0", "soc1", "soc2", "tj"];
    let found: Vec<&str> = now.temperatures.iter().filter_map(|t| t.sensor.location.as_deref()).collect();
    assert_eq!(found, zones, "zones that are off, and those told twice, must be left out");
    let rails = ["ina3221@1-0040/power1 = 9.250", "ina3221@1-0040/power2 = 3.190", "ina3221@1-0040/power3 = 1.990"];
    assert_eq!(told(&now.power), rails);
    let kinds: Vec<_> = now.power.iter().map(|p| (p.sensor.location.as_deref(), p.sensor.kind)).collect();
    let taken = [(Some("VDD_IN"), "enclosure"), (Some("VDD_CPU_GPU_CV"), "cpu"), (Some("VDD_SOC"), "power_supply")];
    assert_eq!(kinds, taken);
    assert_eq!(told(&now.voltages).len(), 3, "voltages over shunts are no rails");
    assert_eq!(told(&now.cpu_speeds), ["cpufreq/policy0 = 1510400000.000", "cpufreq/policy4 = 729600000.000"]);
    // What was counted before the daemon started is not news, and the GPU's own clock and a warm case are no alarm.
    assert_eq!(alarms(&now), [("over-current", false), ("throttled", false), ("under-voltage", false)]);
}

#[test]
fn a_jetson_orin_complains_of_what_is_new() {
    let orin = Changing::of("jetson-orin");
    let mut host = orin.host();
    host.read();
    let events = "sys/devices/platform/soctherm-oc-event/hwmon/hwmon3";
    orin.write(&format!("{events}/oc3_event_cnt"), "38\n");
    orin.write("sys/devices/virtual/thermal/cooling_device4/cur_state", "1\n");
    assert_eq!(alarms(&host.read()), [("over-current", true), ("throttled", true), ("under-voltage", false)]);
    orin.write("sys/devices/virtual/thermal/cooling_device4/cur_state", "0\n");
    orin.write(&format!("{events}/oc1_event_cnt"), "1\n");
    assert_eq!(alarms(&host.read()), [("over-current", false), ("throttled", false), ("under-voltage", true)]);
    // The counts begin again, and one has counted since.
    orin.write(&format!("{events}/oc1_event_cnt"), "0\n");
    orin.write(&format!("{events}/oc3_event_cnt"), "2\n");
    host.look_again();
    assert_eq!(alarms(&host.read()), [("over-current", true), ("throttled", false), ("under-voltage", false)]);
    orin.write("sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/curr2_crit_alarm", "1\n");
    assert_eq!(alarms(&host.read())[0], ("over-current", true));
}

#[test]
fn a_server_is_read() {
    let now = readings("x86-server");
    assert_eq!(
        told(&now.temperatures),
        [
            "thermal/acpitz = 27.800",
            "thermal/acpitz#2 = 29.800",
            "thermal/x86_pkg_temp = 51.000",
            "coretemp@coretemp.0/temp1 = 51.000",
            "coretemp@coretemp.0/temp2 = 49.000",
            "coretemp@coretemp.0/temp3 = 50.000",
            "coretemp@coretemp.1/temp1 = 47.000",
            "coretemp@coretemp.1/temp2 = 45.000",
            "nvme@0000:01:00.0/temp1 = 38.850",
            "nvme@0000:02:00.0/temp1 = 41.850",
        ]
    );
    assert_eq!(now.temperatures[4].sensor.location.as_deref(), Some("Core 0"));
    assert_eq!(told(&now.power), ["power_meter@ACPI000D:00/power1 = 182.000"]);
    assert_eq!(now.cpu_speeds.len(), 4);
    assert_eq!(alarms(&now), [("throttled", false)], "counts from before, and settings, are no alarm");
    let disk = now.filesystem.unwrap();
    assert_eq!((disk.mountpoint.as_path(), disk.kind.as_str()), (Path::new("/"), "ext4"));
}

#[test]
fn sensors_keep_their_words_when_the_kernel_counts_otherwise() {
    let server = Changing::of("x86-server");
    let before = told(&server.host().read().temperatures);
    let chips = server.0.path().join("sys/class/hwmon");
    fs::rename(chips.join("hwmon1"), chips.join("hwmon20")).unwrap();
    fs::rename(chips.join("hwmon4"), chips.join("hwmon1")).unwrap();
    let mut after = told(&server.host().read().temperatures);
    assert_ne!(after, before, "the order is the kernel's");
    after.sort();
    let mut before = before;
    before.sort();
    assert_eq!(after, before);
}

#[test]
fn a_hot_processor_is_throttled() {
    let server = Changing::of("x86-server");
    let mut host = server.host();
    server.write("sys/devices/system/cpu/cpu2/thermal_throttle/package_throttle_count", "4\n");
    assert_eq!(alarms(&host.read()), [("throttled", true)]);
    assert_eq!(alarms(&host.read()), [("throttled", false)]);
}

#[test]
fn a_container_tells_what_it_can() {
    let now = readings("container");
    assert_eq!(now.memory.unwrap().used, (2_097_152 - 1_900_000 - 50_000) << 10);
    assert_eq!(now.network.len(), 1);
    assert!(now.temperatures.is_empty() && now.cpu_speeds.is_empty() && now.power.is_empty() && now.alarms.is_empty());
    assert_eq!(now.filesystem.unwrap().kind, "overlay");
}

#[test]
fn nothing_is_told_where_there_is_nothing() {
    let empty = tempfile::tempdir().unwrap();
    for root in [empty.path(), &empty.path().join("missing")] {
        let now = Host::new(root, &root.join("state")).read();
        assert_eq!(now, Readings::default());
        let machine = Machine::read(root);
        assert_eq!((machine.board.as_str(), machine.cores, machine.uptime()), ("", 0, None));
    }
}

#[test]
fn garbage_is_left_out() {
    let garbage: [&[u8]; 9] = [
        b"",
        b"\n",
        b"(",
        b"() ",
        b"\xff\xfe\0\x80",
        b"-1",
        b"99999999999999999999999",
        b"cpu  1 2\n: : :",
        b"a b c d e f - g",
    ];
    for machine in ["raspberry-pi-5", "jetson-orin", "x86-server"] {
        for bytes in garbage {
            let broken = Changing::of(machine);
            let mut host = broken.host();
            spoil(broken.0.path(), bytes);
            for now in [host.read(), broken.host().read()] {
                let text = String::from_utf8_lossy(bytes);
                assert!(now.cpu.is_empty() && now.memory.is_none() && now.network.is_empty(), "{machine}: {text}");
                assert!(now.process_memory.is_none() && now.power.is_empty(), "{machine}: {text}");
                let sane = |list: &[Measured]| list.iter().all(|measured| measured.value.is_finite());
                assert!(sane(&now.temperatures) && sane(&now.voltages) && sane(&now.cpu_speeds));
            }
            Machine::read(broken.0.path()).uptime();
        }
    }
}

/// Writes these bytes into every file.
fn spoil(folder: &Path, bytes: &[u8]) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            spoil(&entry.path(), bytes);
        } else if entry.file_type().unwrap().is_file() {
            fs::write(entry.path(), bytes).unwrap();
        }
    }
}

#[test]
fn shares_are_those_since_the_last_reading() {
    let pi = Changing::of("raspberry-pi-5");
    let mut host = pi.host();
    host.read();
    assert_eq!(host.read().cpu, [], "no time has passed");
    let stat = |ticks: &str| format!("cpu  {ticks}\nctxt 1\nbtime 1\nprocesses 1\n");
    pi.write("proc/stat", &stat("40030 400 8000 340060 1200 4 406 0 0 0"));
    let shares = [("user", 0.3), ("idle", 0.6), ("interrupt", 0.1), ("iowait", 0.0)];
    let now = host.read().cpu;
    for (mode, share) in shares {
        assert!(now.iter().any(|(name, value)| *name == mode && close(*value, share)), "{mode}: {now:?}");
    }
    // `iowait` goes back, as it may.
    pi.write("proc/stat", &stat("40080 400 8000 340110 1100 4 406 0 0 0"));
    let now = host.read().cpu;
    assert!(now.contains(&("user", 0.5)) && now.contains(&("iowait", 0.0)), "{now:?}");
    // Everything begins again.
    pi.write("proc/stat", &stat("1 0 0 1 0 0 0 0 0 0"));
    assert_eq!(host.read().cpu, []);
    pi.write("proc/stat", &stat("2 0 0 4 0 0 0 0 0 0"));
    assert!(host.read().cpu.contains(&("user", 0.25)));
}

#[test]
fn bytes_of_the_network_never_go_back() {
    let pi = Changing::of("raspberry-pi-4");
    let mut host = pi.host();
    assert_eq!(host.read().network[0].received, 0);
    let file = fs::read_to_string(tree("raspberry-pi-4").join("proc/net/dev")).unwrap();
    pi.write("proc/net/dev", &file.replace("4294967000", "200"));
    assert_eq!(host.read().network[0].received, 200);
    let without: String = file.lines().take(3).map(|line| format!("{line}\n")).collect();
    pi.write("proc/net/dev", &without);
    assert_eq!(host.read().network, []);
    pi.write("proc/net/dev", &file.replace("4294967000", "300"));
    assert_eq!(host.read().network[0].received, 300, "it was away and is back");
}

#[test]
fn sensors_that_come_later_are_found() {
    let pi = Changing::of("raspberry-pi-4");
    let mut host = pi.host();
    copy_folder(
        &tree("x86-server/sys/devices/platform/coretemp.0"),
        &pi.0.path().join("sys/devices/platform/coretemp.0"),
    );
    let chip = pi.0.path().join("sys/class/hwmon/hwmon7");
    symlink("../../devices/platform/coretemp.0/hwmon/hwmon1", chip).unwrap();
    assert_eq!(host.read().temperatures.len(), 1);
    host.look_again();
    assert_eq!(host.read().temperatures.len(), 4);
}

#[test]
fn the_directory_may_be_on_another_disk() {
    let machine = Changing::of("x86-server");
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    let line = format!("41 22 8:4 / {} rw shared:3 - btrfs /dev/sdb rw\n", real.display());
    let file = fs::read_to_string(tree("x86-server").join("proc/self/mountinfo")).unwrap();
    machine.write("proc/self/mountinfo", &(line + "not a line\n" + &file));
    let filesystem = Host::new(machine.0.path(), &real.join("not/yet")).read().filesystem.unwrap();
    assert_eq!((filesystem.mountpoint, filesystem.kind.as_str()), (real, "btrfs"));
}

#[test]
fn machines_are_told_by_name() {
    let told = |machine: &str| Machine::read(&tree(machine));
    for (machine, board, cpu, cores) in [
        ("raspberry-pi-5", "Raspberry Pi 5 Model B Rev 1.0", "Cortex-A76", 4),
        ("raspberry-pi-4", "Raspberry Pi 4 Model B Rev 1.4", "Cortex-A72", 4),
        ("jetson-orin", "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "Cortex-A78AE", 6),
        ("x86-server", "Dell Inc. PowerEdge R650xs", "Intel(R) Xeon(R) Silver 4310 CPU @ 2.10GHz", 4),
        ("container", "", "AMD EPYC 7B13", 2),
    ] {
        let told = told(machine);
        assert_eq!((told.board.as_str(), told.cpu.as_str(), told.cores), (board, cpu, cores), "{machine}");
        assert_eq!(told.boot_id.len(), 36);
    }
    let pi = told("raspberry-pi-5");
    assert_eq!((pi.hostname.as_str(), pi.kernel.as_str()), ("gateway-5", "6.6.31+rpt-rpi-2712"));
    assert_eq!(pi.os, "Debian GNU/Linux 12 (bookworm)");
    assert_eq!(pi.memory, 8_244_320 << 10);
    assert_eq!(pi.uptime(), Some(Duration::from_secs_f64(35_012.07)));
}

#[test]
fn this_machine_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::new(Path::new("/"), dir.path());
    let now = host.read();
    assert!(close(now.cpu.iter().map(|(_, share)| share).sum(), 1.0), "{now:?}");
    let memory = now.memory.unwrap();
    assert!(memory.total > memory.free && memory.total >= memory.available && memory.available > 0, "{memory:?}");
    let filesystem = now.filesystem.unwrap();
    assert!(dir.path().starts_with(&filesystem.mountpoint) && filesystem.used > 0, "{filesystem:?}");
    assert!(now.process_memory.unwrap() > 1 << 20);
    assert!(now.process_cpu.len() == 2);
    let machine = Machine::read(Path::new("/"));
    assert!(machine.cores >= 1 && machine.memory == memory.total && !machine.hostname.is_empty(), "{machine:?}");
    let first = machine.uptime().unwrap();
    assert!(machine.uptime().unwrap() >= first && !first.is_zero());
}

#[test]
fn words_are_those_of_the_list() {
    let alarm = find(name::HW_ALARM).unwrap().doc;
    let modes = find(name::CPU).unwrap().doc;
    for machine in ["raspberry-pi-4", "jetson-orin", "x86-server"] {
        let now = readings(machine);
        assert!(now.alarms.iter().all(|told| alarm.contains(&format!("`{}`", told.name))));
        assert!(now.cpu.iter().all(|(mode, _)| modes.contains(&format!("`{mode}`"))));
    }
}
