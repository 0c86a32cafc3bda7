//! A Slurm of two emulated nodes on the loopback, for the test of the executor.

use std::fmt::Write;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::Command;

const PACKAGES: [&str; 2] = ["slurm-wlm", "munge"];
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the daemons in a folder; ends them and removes it when its standard input closes, which it does however this program
/// ends.
const GUARD: &str = r#"
trap '' INT
folder=$1
daemons=
start() { "$@" < /dev/null > /dev/null 2>&1 & daemons="$daemons $!"; }
start munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munge.pid" --log-file="$folder/munge.log" --seed-file="$folder/munge.seed" --num-threads=2
for _ in $(seq 100); do [ -S "$folder/munge.socket" ] || sleep 0.1; done
start slurmctld -D -f "$SLURM_CONF"
start slurmd -D -N n1 -f "$SLURM_CONF"
start slurmd -D -N n2 -f "$SLURM_CONF"
read -r _
timeout 5 scancel --full --signal=KILL --user="$(id -un)"
kill $daemons
wait
rm -rf "$folder"
"#;

/// A Slurm under way; it ends when this is dropped.
pub struct Slurm {
    guard: Child,
    folder: PathBuf,
}

impl Slurm {
    /// Starts it and waits until both nodes are idle; none, and a line that says so, where this user may not install it.
    ///
    /// # Errors
    /// When it cannot be installed although this user may, or does not start.
    pub fn start() -> Result<Option<Self>> {
        if let Some(reason) = missing()? {
            eprintln!("Slurm: not there ({reason}); the test of its executor is skipped");
            return Ok(None);
        }
        // The name of a socket must be short: the target folder may lie deep.
        let folder = std::env::temp_dir().join(format!("sst-slurm-{}", std::process::id()));
        let slurm = Self {
            guard: guard(&folder)?,
            folder,
        };
        let began = Instant::now();
        while slurm.client("sinfo", &["--noheader", "--format=%T %D"]).as_deref() != Some("idle 2\n") {
            if began.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(slurm.folder.join("slurmctld.log")).unwrap_or_default();
                bail!(
                    "Slurm does not start: {}",
                    log.lines().last().unwrap_or("its controller left no log")
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("Slurm: two nodes are idle");
        Ok(Some(slurm))
    }

    /// The configuration that its commands find it by.
    pub fn configuration(&self) -> PathBuf {
        configuration(&self.folder)
    }

    fn client(&self, program: &str, args: &[&str]) -> Option<String> {
        Command::new(program)
            .args(args.iter().copied())
            .env("SLURM_CONF", self.configuration())
            .answer()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // It may have ended by itself, which is no fault here.
        let _ = self.guard.wait();
    }
}

fn configuration(folder: &Path) -> PathBuf {
    folder.join("slurm.conf")
}

/// Installs it where it is missing and this user may; else why not.
fn missing() -> Result<Option<String>> {
    let there = |program: &str| Command::new("which").args([program]).answer().is_some();
    let all = ["munged", "slurmctld", "slurmd", "sbatch"].into_iter().all(there);
    if Command::new("id").args(["-u"]).answer().as_deref() != Some("0\n") {
        return Ok(Some("its daemons need root".to_owned()));
    }
    if all {
        return Ok(None);
    }
    if !there("apt-get") {
        return Ok(Some(format!("no apt-get to install {} with", PACKAGES.join(" and "))));
    }
    let apt = |args: &[&str]| {
        Command::new("env")
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
            .args(args.iter().copied())
    };
    apt(&["update"]).run_quietly("package lists: fetching")?;
    apt(&["install", "--yes", "--no-install-recommends"])
        .args(PACKAGES)
        .run_quietly("Slurm: installing")?;
    Ok(None)
}

/// Writes the configuration and starts the daemons under a guard.
fn guard(folder: &Path) -> Result<Child> {
    let written = |path: &Path| format!("{} cannot be written", path.display());
    std::fs::create_dir_all(folder.join("state")).with_context(|| written(folder))?;
    let conf = configuration(folder);
    std::fs::write(&conf, text(folder, ports()?)).with_context(|| written(&conf))?;
    // It keeps nobody out of a loopback that only this machine's users reach: any 32 bytes or more will do.
    let key = folder.join("munge.key");
    std::fs::File::create(&key)
        .and_then(|mut file| file.write_all(&[7; 128]))
        .with_context(|| written(&key))?;
    #[cfg(unix)]
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o400))
        .with_context(|| written(&key))?;
    std::process::Command::new("sh")
        .args(["-c", GUARD, "guard"])
        .arg(folder)
        .env("SLURM_CONF", &conf)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("`sh` could not be started")
}

/// Free ports of the loopback: the controller's and the nodes'.
fn ports() -> Result<[u16; 3]> {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener
            .and_then(|listener| listener.local_addr())
            .context("no port of the loopback is free")?
            .port();
    }
    Ok(ports)
}

fn text(folder: &Path, [controller, first, second]: [u16; 3]) -> String {
    let f = folder.display();
    let mut text = format!(
        "ClusterName=test\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort={controller}\nSlurmUser=root\n\
         AuthType=auth/munge\nAuthInfo=socket={f}/munge.socket\n\
         StateSaveLocation={f}/state\nSlurmdSpoolDir={f}/spool-%n\nSlurmctldPidFile={f}/slurmctld.pid\n\
         SlurmdPidFile={f}/slurmd-%n.pid\nSlurmctldLogFile={f}/slurmctld.log\nSlurmdLogFile={f}/slurmd-%n.log\n\
         ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\n\
         AccountingStorageType=accounting_storage/none\nMpiDefault=none\nReturnToService=2\n"
    );
    // A lost job stays lost, and what comes after one that has ended begins at once.
    text.push_str("JobRequeue=0\nSchedulerParameters=batch_sched_delay=0,sched_min_interval=0\n");
    for (node, port) in [("n1", first), ("n2", second)] {
        let _ = writeln!(
            text,
            "NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=1"
        );
    }
    text.push_str("PartitionName=all Nodes=ALL Default=YES State=UP\n");
    text
}
