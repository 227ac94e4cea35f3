//! A connection ends when the first certificate of its chain does.

use time::{Duration, OffsetDateTime};

use super::*;

const LEFT_S: i64 = 4;

fn soon() -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::seconds(LEFT_S)
}

fn check_ends_at(shop: &Shop, shown: &Shown, expires: OffsetDateTime) {
    let mut web = shop.connect(shown);
    check_alive(&mut web);
    let row = shop.broker.status()["connections"][0].clone();
    assert_eq!(row["expires_unix_s"], expires.unix_timestamp());
    assert_eq!(
        shop.broker.status()["soonest_expiry"]["expires_unix_s"],
        expires.unix_timestamp()
    );
    assert_eq!(web.rest(), "-ERR 'Stale Connection'\r\n");
    assert!(OffsetDateTime::now_utc() >= expires, "it ended before its time");
    wait_for("the count", || {
        shop.count("ended", "authority ended: expired") > 0
    });
    shop.check_refused(shown, "expired");
    let log = shop.broker.log();
    for words in [
        "a certificate expires soon",
        "authority ended, connection closed: expired at",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
}

#[test]
fn a_connection_ends_when_its_certificate_does() {
    let shop = Shop::open();
    let expires = soon();
    let web = shop.ca.leaf(|params| params.not_after = expires);
    check_ends_at(&shop, &web, expires);
}

#[test]
fn a_connection_ends_when_an_intermediate_does() {
    let shop = Shop::open();
    let expires = soon();
    let intermediate = shop.ca.intermediate("short", |params| params.not_after = expires);
    check_ends_at(&shop, &intermediate.leaf(|_| {}), expires);
}

#[test]
fn an_operator_whose_certificate_has_expired_may_nothing_more() {
    let shop = Shop::open();
    let expires = soon();
    let alice = shop.ca.leaf(|params| {
        params.not_after = expires;
        params.subject_alt_names = vec![uri(&id("operator/alice"))];
    });
    let admin = crate::operators::admin_address(&shop.broker);
    let mut raw = shop.shake(admin, &alice).expect("a handshake");
    assert!(crate::operators::request(&mut raw, "/v1/status").contains(" 200 "));
    wait_for("the expiry", || {
        OffsetDateTime::now_utc() > expires + Duration::seconds(1)
    });
    assert!(crate::operators::request(&mut raw, "/v1/status").contains(" 403 "));
    assert!(
        shop.broker.log().contains("reason=\"expired: "),
        "{}",
        shop.broker.log()
    );
}
