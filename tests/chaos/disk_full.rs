//! A disk without space: publishers hear it at once, nothing that was acknowledged is lost, and the broker goes on by
//! itself when there is space again.
//!
//! Needs root, to mount a small file system. Without root it is skipped, with a word.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;

use crate::support::{Broker, has, wait_for};
use crate::{acknowledge, header, next, publish, queue, queues};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.created"]

[service.mail]
receives = ["todos.created"]

[message."todos.created"]
kind = "event"
delivery = "at-least-once"
ack-within = "20s"
"#;

/// Two segments of the log (16 MiB each), a filler as large as a third, and some MiB that are of no use.
const DISK_MIB: usize = 54;
const FILLER_MIB: usize = 18;

const PAYLOAD_BYTES: usize = 32 << 10;

/// A file system of a few MiB in memory; unmounted when dropped.
struct SmallDisk {
    folder: PathBuf,
    _within: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where it may not be mounted, and the test is skipped.
    fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: to mount a small disk needs root");
            return None;
        }
        let within = tempfile::tempdir().expect("a temporary folder");
        let folder = within.path().join("disk");
        std::fs::create_dir(&folder).expect("the folder takes a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_MIB}m"), "exocom-test"])
            .arg(&folder)
            .status();
        let is_mounted = mounted.is_ok_and(|status| status.success());
        has("the right to mount a tmpfs", is_mounted).then_some(Self {
            folder,
            _within: within,
        })
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a broker that is being killed may still have files open.
        drop(Command::new("umount").arg("-l").arg(&self.folder).status());
    }
}

fn config(store: &Path) -> String {
    format!(
        "version = 1\nname = \"full\"\npolicy = \"policy.toml\"\nadmin-socket = \"admin.sock\"\n\n\
         [tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\n\
         [listener.all]\naddress = \"127.0.0.1:0\"\nroots = [\"certs/ca.pem\"]\n\n\
         [store]\nfolder = \"{}\"\n\n[limits]\nlame-duck-ms = 0\n",
        store.display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_loses_nothing_and_recovers_by_itself() {
    let Some(disk) = SmallDisk::mount() else { return };
    std::fs::write(disk.filler(), vec![1; FILLER_MIB << 20]).unwrap();
    let mut broker = Broker::serve(POLICY, &config(&disk.store()));
    let mut acknowledged = Vec::new();

    let web = broker.client("web").await;
    fill(&web, &mut acknowledged).await;
    assert!(
        acknowledged.len() * PAYLOAD_BYTES > 24 << 20,
        "two segments take more than {}",
        acknowledged.len()
    );
    let listed = queue(&broker, &["list"]);
    assert!(listed.contains("the disk is full"), "{listed}");
    drop(web);

    // A crash does not make it worse.
    broker.kill();
    let broker = broker.restart();
    let web = broker.client("web").await;
    assert_eq!(
        publish(&web, "todos.created", payload(0)).await,
        Err("overloaded".to_owned())
    );

    std::fs::remove_file(disk.filler()).unwrap();
    wait_for("the broker to see that there is space", || {
        queues(&broker)["is_disk_full"] == false
    });
    let before = acknowledged.len();
    let seq = publish(&web, "todos.created", payload(before)).await;
    acknowledged.push(seq.expect("it is taken again"));
    // Full once more, now by messages alone. The receiver's acknowledgements make room.
    fill(&web, &mut acknowledged).await;
    let mail = broker.client("mail").await;
    let mut events = mail
        .queue_subscribe("todos.created", "mail".to_owned())
        .await
        .unwrap();
    for (number, seq) in acknowledged.iter().enumerate() {
        let event = next(&mut events).await;
        assert_eq!(header(&event, "Exo-Id"), seq.to_string());
        assert!(
            event.payload == payload(number),
            "message {seq} carries what was published"
        );
        acknowledge(&mail, &event).await;
    }
    wait_for("an empty store with space", || {
        let queues = queues(&broker);
        queues["messages"] == 0 && queues["is_disk_full"] == false
    });
    let seq = publish(&web, "todos.created", payload(0)).await;
    assert!(seq.is_ok(), "{seq:?}");
}

/// Publishes until the disk is full.
async fn fill(web: &async_nats::Client, acknowledged: &mut Vec<u64>) {
    loop {
        match publish(web, "todos.created", payload(acknowledged.len())).await {
            Ok(seq) => acknowledged.push(seq),
            Err(reason) => {
                assert_eq!(reason, "overloaded");
                return;
            }
        }
        assert!(
            acknowledged.len() * PAYLOAD_BYTES < DISK_MIB << 20,
            "more is acknowledged than the disk can hold"
        );
    }
}

/// Large, and different for each number.
fn payload(number: usize) -> Bytes {
    let text = format!("{number:08x}");
    text.repeat(PAYLOAD_BYTES / text.len()).into()
}
