//! Certificates, roots and revocation lists that change under a running broker: taken when their files change, with
//! nobody dropped who need not be; what cannot be used leaves the old in force.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rcgen::CrlDistributionPoint;

use super::*;

const REFUSED: &str = "certificates not reloaded, the old ones stay";

/// Puts a file in the place of another at once, as those do who know better than to write into it.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("the folder takes a file");
    fs::rename(new, path).expect("the folder takes a file");
}

impl Shop {
    pub(super) fn put_roots(&self, roots: &[&Ca]) {
        let text = pem("CERTIFICATE", roots.iter().map(|root| &*root.cert));
        replace(&self.folder.path().join("ca.pem"), &text);
    }

    fn put_lists<'a>(&self, lists: impl IntoIterator<Item = &'a [u8]>) {
        replace(&self.folder.path().join("ca.crl"), &pem("X509 CRL", lists));
    }

    pub(super) fn is_let_in(&self, shown: &Shown) -> bool {
        let heard = self
            .shake(self.broker.address(), shown)
            .and_then(|mut raw| raw.try_line());
        matches!(heard, Ok(Some(line)) if line.starts_with("INFO "))
    }

    fn refusals(&self) -> usize {
        self.broker.log().matches(REFUSED).count()
    }

    /// Waits for one more refusal, which says these words, and which `exocom status` shows.
    #[track_caller]
    fn check_refusal(&self, before: usize, words: &str) {
        wait_for("the refusal", || self.refusals() > before);
        let log = self.broker.log();
        let line = log
            .lines()
            .rfind(|line| line.contains(REFUSED))
            .expect("it is there");
        assert!(line.contains(words), "{line}");
        wait_for("the status", || {
            let refused = self.broker.status()["refused_certificates"].clone();
            refused.as_str().is_some_and(|refused| refused.contains(words))
        });
        assert_eq!(self.refusals(), before + 1, "one line: {log}");
    }
}

#[test]
fn roots_that_go_take_their_connections_along_and_spare_the_others() {
    let shop = Shop::open();
    let other = Ca::root("other");
    let old = shop.issue("web");
    let new = other.leaf(|_| {});
    assert!(!shop.is_let_in(&new));
    let mut of_old = shop.connect(&old);
    shop.put_roots(&[&shop.ca, &other]);
    wait_for("the second root", || shop.is_let_in(&new));
    let mut of_new = shop.connect(&new);
    check_alive(&mut of_old);
    shop.put_roots(&[&other]);
    assert_eq!(of_old.rest(), "-ERR 'Stale Connection'\r\n");
    check_alive(&mut of_new);
    shop.check_refused(&old, "unknown-issuer");
    wait_for("the count", || {
        shop.count("ended", "authority ended: unknown-issuer") == 1
    });
    // Operators are believed by the same roots here.
    let admin = crate::operators::admin_address(&shop.broker);
    let alice = shop.issue("operator/alice");
    let heard = shop.shake(admin, &alice).and_then(|mut raw| raw.try_line());
    assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
}

#[test]
fn a_new_list_reaches_open_connections_and_an_older_one_is_refused() {
    let shop = Shop::open_with("crls = [\"DIR/ca.crl\"]");
    let (stolen, spared) = (shop.issue("web"), shop.issue("web"));
    let (mut cut_off, mut alive) = (shop.connect(&stolen), shop.connect(&spared));
    let list = |number: u64, minutes: i64| shop.ca.crl_of(number, None, &[&stolen.serial], minutes);
    let newest = list(7, 60);
    shop.put_lists([&*newest]);
    assert_eq!(cut_off.rest(), "-ERR 'Stale Connection'\r\n");
    check_alive(&mut alive);
    shop.check_refused(&stolen, "revoked");

    let check_kept = |text: &str, words: &str| {
        let before = shop.refusals();
        replace(&shop.folder.path().join("ca.crl"), text);
        shop.check_refusal(before, words);
        shop.check_refused(&stolen, "revoked");
        assert!(shop.is_let_in(&spared));
    };
    let text = |list: &[u8]| pem("X509 CRL", [list]);
    check_kept(
        &text(&shop.ca.crl_of(6, None, &[], 60)),
        "is older than the one that is held",
    );
    check_kept(&text(&shop.ca.crl_of(8, None, &[], -1)), "expired at");
    check_kept("", "nothing of that kind is in it");
    check_kept(&text(b"nonsense"), "it is not a DER certificate revocation list");
    let whole = text(&shop.ca.crl_of(9, None, &[], 60));
    check_kept(&whole[..whole.len() / 2], "certificate revocation list");
    check_alive(&mut alive);
    // Whole at last.
    replace(&shop.folder.path().join("ca.crl"), &whole);
    wait_for("the whole list", || shop.is_let_in(&stolen));
    wait_for("the status", || {
        shop.broker.status()["refused_certificates"].is_null()
    });
    check_alive(&mut alive);
}

#[test]
fn a_forged_list_is_refused_and_without_one_of_theirs_nobody_comes_in() {
    let shop = Shop::open_with("crls = [\"DIR/ca.crl\"]");
    let web = shop.issue("web");
    let mut open = shop.connect(&web);
    // The same name, another key: whoever made it cannot make it ours.
    let forger = Ca::root("shop");
    let forged = forger.crl_of(9, None, &[], 60);
    shop.put_lists([&*forged]);
    shop.check_refusal(0, "and not its signature");
    check_alive(&mut open);
    assert!(shop.is_let_in(&web));
    // Another name: no list is there for our issuer.
    let stranger = Ca::root("stranger").crl(&[], 60);
    shop.put_lists([&*stranger]);
    assert_eq!(open.rest(), "-ERR 'Stale Connection'\r\n");
    shop.check_refused(&web, "revocation-unknown");
    let good = shop.ca.crl_of(2, None, &[], 60);
    shop.put_lists([&*good]);
    wait_for("a list that is ours", || shop.is_let_in(&web));
}

#[test]
fn lists_of_several_distribution_points_are_each_for_their_own() {
    let shop = Shop::open_with("crls = [\"DIR/ca.crl\"]");
    let at = |point: &str| {
        let point = CrlDistributionPoint {
            uris: vec![point.to_owned()],
        };
        shop.ca
            .leaf(|params| params.crl_distribution_points = vec![point])
    };
    const ONE: &str = "http://lists.example/1.crl";
    const TWO: &str = "http://lists.example/2.crl";
    let (bad, good, elsewhere) = (at(ONE), at(TWO), at("http://lists.example/3.crl"));
    let one = shop.ca.crl_of(5, Some(ONE), &[&bad.serial], 60);
    let two = shop.ca.crl_of(1, Some(TWO), &[&bad.serial], 60);
    shop.put_lists([&*one, &*two]);
    wait_for("the lists", || !shop.is_let_in(&bad));
    shop.check_refused(&bad, "revoked");
    assert!(shop.is_let_in(&good));
    shop.check_refused(&elsewhere, "revocation-unknown");
    // Each point has numbers of its own.
    let before = shop.refusals();
    let older = shop.ca.crl_of(4, Some(ONE), &[], 60);
    shop.put_lists([&*older, &*two]);
    shop.check_refusal(before, "is older than the one that is held");
    shop.check_refused(&bad, "revoked");
}

#[test]
fn a_link_that_is_swapped_for_all_files_at_once_is_noticed() {
    // As Kubernetes mounts a secret: NAME -> ..data/NAME, ..data -> ..VERSION.
    let shop = Shop::open_with("crls = [\"DIR/ca.crl\"]");
    let other = Ca::root("other");
    let new = other.leaf(|_| {});
    let dir = shop.folder.path();
    let version = |name: &str, roots: String, list: &[u8]| {
        let folder = dir.join(name);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("ca.pem"), roots).expect("a file");
        fs::write(folder.join("ca.crl"), pem("X509 CRL", [list])).expect("a file");
    };
    version(
        "..one",
        pem("CERTIFICATE", [&*shop.ca.cert]),
        &shop.ca.crl(&[], 60),
    );
    symlink("..one", dir.join("..data")).expect("a link");
    for name in ["ca.pem", "ca.crl"] {
        symlink(format!("..data/{name}"), dir.join("link")).expect("a link");
        fs::rename(dir.join("link"), dir.join(name)).expect("a link");
    }
    let mut open = shop.connect(&shop.issue("web"));
    version(
        "..two",
        pem("CERTIFICATE", [&*shop.ca.cert, &*other.cert]),
        &shop.ca.crl_of(2, None, &[], 60),
    );
    // The lists are for one of the two only: the other root's clients are known, and refused for want of a list.
    symlink("..two", dir.join("..tmp")).expect("a link");
    fs::rename(dir.join("..tmp"), dir.join("..data")).expect("a link");
    wait_for("the swap", || {
        let before = shop.count("refused", "revocation-unknown");
        shop.is_let_in(&new) || shop.count("refused", "revocation-unknown") > before
    });
    check_alive(&mut open);
    assert_eq!(shop.refusals(), 0, "{}", shop.broker.log());
}

#[test]
fn a_pair_that_is_replaced_in_two_steps_is_taken_when_it_is_whole() {
    let shop = Shop::open();
    let web = shop.issue("web");
    let shown = || {
        let raw = shop.connect(&web);
        raw.tls().peer_certificates().expect("the server shows one")[0].to_vec()
    };
    let mut open = shop.connect(&web);
    let before = shown();
    let certs = shop.broker.dir().join("certs");
    let issued = Command::new(EXOCOM)
        .args(["certs", "issue", "--server", "--dir", "new"])
        .current_dir({
            fs::create_dir(shop.broker.path("new")).expect("a folder");
            for name in ["ca.pem", "ca.key"] {
                fs::copy(certs.join(name), shop.broker.path("new").join(name)).expect("a file");
            }
            shop.broker.dir()
        })
        .output()
        .expect("the binary was built for the tests");
    assert!(issued.status.success());
    let new = |name: &str| fs::read_to_string(shop.broker.path("new").join(name)).expect("it was issued");
    replace(&certs.join("server.pem"), &new("server.pem"));
    shop.check_refusal(0, "does not belong to its certificate");
    assert_eq!(shown(), before);
    replace(&certs.join("server.key"), &new("server.key"));
    wait_for("the new certificate", || shown() != before);
    check_alive(&mut open);
    // Roots and lists are the same: nobody was asked anything.
    assert!(
        !shop
            .broker
            .log()
            .contains("roots or revocation lists have changed")
    );
}

#[test]
fn without_file_descriptors_the_old_certificate_stays_until_there_are_some() {
    let shop = Shop::open();
    let mut open = shop.connect(&shop.issue("web"));
    let limit = |files: &str| {
        let limited = Command::new("prlimit")
            .args([
                "--pid",
                &shop.broker.pid().to_string(),
                &format!("--nofile={files}:"),
            ])
            .output();
        crate::support::has("prlimit", limited.is_ok_and(|output| output.status.success()))
    };
    if !limit("3") {
        return;
    }
    let other = Ca::root("other");
    let new = other.leaf(|_| {});
    shop.put_roots(&[&shop.ca, &other]);
    wait_for("the refusal", || shop.refusals() > 0);
    let log = shop.broker.log();
    assert!(log.contains("Too many open files"), "{log}");
    check_alive(&mut open);
    assert!(limit("1024"));
    // Nothing tells that there are some again: it looks by itself.
    wait_for("the second root", || shop.is_let_in(&new));
    check_alive(&mut open);
}
