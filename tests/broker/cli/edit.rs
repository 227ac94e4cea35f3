//! `exocom policy edit` of a file, of a folder, and of what a running broker has in force.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use assert_cmd::Command;

use super::{Answer, edited, folder, write};
use crate::support::{Broker, EXOCOM, TODO_POLICY};

/// Edits with this for an editor and these answers to the questions.
fn edit(folder: &Path, arguments: &[&str], editor: &str, answers: &str) -> Answer {
    let output = Command::new(EXOCOM)
        .args(["policy", "edit"])
        .args(arguments)
        .current_dir(folder)
        .env_remove("VISUAL")
        .env("EDITOR", editor)
        .env("TMPDIR", folder)
        .write_stdin(answers)
        .output()
        .expect("the binary was built for the tests");
    Answer::of(output)
}

/// An editor that gives `web` one message more, in whichever file it is.
const MORE: &str = "sed -i s/todos.create\\\"]/todos.create\\\",\\\"todos.purge\\\"]/";

fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).expect("it is there");
    let mut names: Vec<_> = files
        .map(|file| {
            file.expect("it is there")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn all_files_of_a_folder_are_edited_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).expect("it is ours");
    let (head, services) = TODO_POLICY.split_once("[service.web]").expect("it is listed");
    let write = |name: &str, text: &str| fs::write(policies.join(name), text).expect("it is ours");
    let read = |name: &str| fs::read_to_string(policies.join(name)).expect("it is there");
    write("a.toml", head);
    write("b.toml", &format!("[service.web]{services}"));
    write("b.expect", "allow web send todos.list\n");

    let answer = edit(folder.path(), &["policies"], MORE, "n\n");
    assert_eq!(answer.code, Some(1), "{}", answer.err);
    assert!(
        answer.out.contains("+ sends todos.purge  (policies/b.toml:3)"),
        "{}",
        answer.out
    );
    assert!(!read("b.toml").contains("todos.purge"));

    let answer = edit(folder.path(), &["policies"], MORE, "y\n");
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert!(answer.out.ends_with("policies: replaced\n"), "{}", answer.out);
    assert!(read("b.toml").contains("todos.purge"));
    assert_eq!(read("a.toml"), head);

    // A file may go, and another come.
    let moved = "f() { d=$(dirname \"$1\"); mv \"$d/b.toml\" \"$d/c.toml\"; }; f";
    let answer = edit(folder.path(), &["policies"], moved, "y\n");
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert!(answer.out.starts_with("no difference"), "{}", answer.out);
    assert_eq!(names(&policies), ["a.toml", "b.expect", "c.toml"]);

    // What is not as expected is not saved; nor where somebody else has changed it meanwhile.
    let less = "sed -i s/\\\"todos.list\\\",//";
    let answer = edit(folder.path(), &["policies"], less, "n\n");
    assert_eq!(answer.code, Some(1));
    assert!(
        answer.err.starts_with("failed: policies/b.expect:1: "),
        "{}",
        answer.err
    );
    let before = read("c.toml");
    let meanwhile = format!("{less} \"$@\"; echo '# mine' >> policies/a.toml; :");
    fs::remove_file(policies.join("b.expect")).expect("it is there");
    let answer = edit(folder.path(), &["policies"], &meanwhile, "y\n");
    assert_eq!(answer.code, Some(1));
    assert!(
        answer
            .err
            .starts_with("policies: somebody has changed the files meanwhile; what you wrote is kept in "),
        "{}",
        answer.err
    );
    assert_eq!(
        (read("c.toml"), read("a.toml")),
        (before, format!("{head}# mine\n"))
    );

    for missing in ["missing.toml", "policies/missing.toml"] {
        let answer = edit(folder.path(), &[missing], "true", "");
        assert_eq!((answer.code, &*answer.out), (Some(2), ""));
        assert!(answer.err.contains(missing), "{}", answer.err);
    }
}

#[test]
fn the_policy_in_force_is_edited_and_applied() {
    let broker = Broker::dev(TODO_POLICY);
    let admin = broker.dir().to_str().expect("it is text");
    let arguments = ["--admin", admin, "--why", "web may purge"];
    let answer = edit(broker.dir(), &arguments, "true", "");
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    assert!(answer.out.ends_with("nothing was changed\n"), "{}", answer.out);

    let answer = edit(broker.dir(), &arguments, MORE, "y\n");
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert!(answer.out.contains("+ sends todos.purge"), "{}", answer.out);
    assert!(
        answer.out.contains(" is in force, in place of "),
        "{}",
        answer.out
    );
    let mut web = broker.raw_ready("web");
    web.send(b"PUB todos.purge 0\r\n\r\nPING\r\n");
    assert_eq!(web.line(), "PONG");

    // In place of what was edited, and of nothing else.
    let text = fs::read_to_string(broker.path("policy.toml")).expect("it is there");
    fs::write(
        broker.path("other.toml"),
        text.replace("todos.purge", "todos.drop"),
    )
    .expect("the folder takes a file");
    let meanwhile = format!(
        "sed -i s/todos.purge/todos.clear/ \"$@\"; {EXOCOM} policy apply other.toml --yes --admin {admin} >&2; :"
    );
    let answer = edit(broker.dir(), &arguments, &meanwhile, "y\n");
    assert_eq!(answer.code, Some(1));
    assert!(
        answer.err.contains("compare again") && answer.err.contains("what you wrote is kept in "),
        "{}",
        answer.err
    );
    let answer = edit(broker.dir(), &["--admin", "nobody.sock"], "true", "");
    assert_eq!((answer.code, &*answer.out), (Some(2), ""));
    assert!(answer.err.contains("no broker answers"), "{}", answer.err);
}

#[test]
fn an_edit_is_checked_shown_and_asked_for() {
    let folder = folder();
    let file = folder.path().join("policy.toml");
    let read = || fs::read_to_string(&file).expect("it is there");
    let more = edited("\"todos.list\",", "\"todos.list\", \"todos.purge\",");
    write(folder.path(), "more.txt", &more);
    write(folder.path(), "bad.txt", "version = 1\n");

    let answer = edit(folder.path(), &["policy.toml"], "true", "");
    assert_eq!(
        (answer.code, &*answer.out),
        (Some(0), "policy.toml: nothing was changed\n")
    );

    // A broken policy cannot be saved, whatever is answered; what was written is kept.
    let answer = edit(folder.path(), &["policy.toml"], "cp bad.txt", "y\ny\nn\ny\n");
    assert_eq!(answer.code, Some(1));
    assert_eq!(
        answer
            .err
            .matches("the policy does not say its trust domain")
            .count(),
        3,
        "{}",
        answer.err
    );
    assert!(!answer.out.contains("replace"), "{}", answer.out);
    let (_, kept) = answer
        .err
        .rsplit_once("what you wrote is kept in ")
        .expect("it says where");
    assert_eq!(
        fs::read_to_string(kept.trim()).expect("it is there"),
        "version = 1\n"
    );
    assert_eq!(read(), TODO_POLICY);

    // Without a yes nothing is saved.
    for answers in ["n\n", "", "\n", "yep\n"] {
        let answer = edit(folder.path(), &["policy.toml"], "cp more.txt", answers);
        assert_eq!(answer.code, Some(1), "{answers:?}");
        assert!(answer.out.contains("+ sends todos.purge"), "{}", answer.out);
        assert_eq!(read(), TODO_POLICY);
    }

    // What is not as expected cannot be saved either.
    write(folder.path(), "policy.expect", "deny web send todos.purge\n");
    let answer = edit(folder.path(), &["policy.toml"], "cp more.txt", "n\n");
    assert_eq!(answer.code, Some(1));
    assert!(
        answer.err.starts_with("failed: policy.expect:1: "),
        "{}",
        answer.err
    );
    assert!(!answer.out.contains("replace"), "{}", answer.out);
    fs::remove_file(folder.path().join("policy.expect")).expect("it is there");

    let answer = edit(folder.path(), &["policy.toml"], "exit 3; :", "");
    assert_eq!((answer.code, &*answer.out), (Some(2), ""));
    assert!(answer.err.contains("the editor"), "{}", answer.err);
    assert_eq!(read(), TODO_POLICY);
}

#[test]
fn an_edit_replaces_the_file_whole_with_its_mode_and_through_a_link() {
    let folder = folder();
    let file = folder.path().join("policy.toml");
    let real = folder.path().join("real.toml");
    fs::rename(&file, &real).expect("the folder is ours");
    std::os::unix::fs::symlink("real.toml", &file).expect("the folder is ours");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("it is ours");
    let more = edited("\"todos.list\",", "\"todos.list\", \"todos.purge\",");
    write(folder.path(), "more.txt", &more);
    write(folder.path(), "bad.txt", "version = 1\n");

    // Somebody else was faster.
    let answer = edit(
        folder.path(),
        &["policy.toml"],
        "echo '# faster' >> policy.toml; cp more.txt",
        "y\n",
    );
    assert_eq!(answer.code, Some(1));
    assert!(
        answer.err.contains("somebody has changed the file meanwhile"),
        "{}",
        answer.err
    );
    assert_eq!(
        fs::read_to_string(&real).expect("it is there"),
        format!("{TODO_POLICY}# faster\n")
    );

    // Broken at first, right the second time.
    let twice = "if [ -e once ]; then cp more.txt \"$1\"; else touch once; cp bad.txt \"$1\"; fi; :";
    let answer = edit(folder.path(), &["policy.toml"], twice, "\ny\n");
    assert_eq!(answer.code, Some(0), "{}{}", answer.out, answer.err);
    assert!(answer.out.ends_with("policy.toml: replaced\n"), "{}", answer.out);
    assert_eq!(fs::read_to_string(&real).expect("it is there"), more);
    assert_eq!(
        fs::metadata(&real).expect("it is there").permissions().mode() & 0o777,
        0o640
    );
    assert!(fs::symlink_metadata(&file).expect("it is there").is_symlink());
}
