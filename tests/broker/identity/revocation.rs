//! Revocation lists, and configurations that would check nothing.

use super::*;

#[test]
fn revocation_is_checked_for_the_whole_chain() {
    let world = World::new();
    let shop = &world.shop;
    let intermediate = shop.intermediate("listed", |_| {});
    let unlisted = shop.intermediate("without a list", |_| {});
    let revoked_issuer = shop.intermediate("revoked", |_| {});
    let (good, bad) = (shop.leaf(|_| {}), shop.leaf(|_| {}));
    let (deep_good, deep_bad) = (intermediate.leaf(|_| {}), intermediate.leaf(|_| {}));
    let lists = [
        shop.crl(&[&bad.serial, &revoked_issuer.serial], 60),
        intermediate.crl(&[&deep_bad.serial], 60),
        revoked_issuer.crl(&[], 60),
    ];
    let (verifier, broker) = (world.verifier(Some(lists.to_vec())), world.broker(Some(&lists)));
    let check_here = |name: &str, shown: &Shown, expected: Outcome| {
        check(&verifier, &broker, name, shown, &expected);
    };
    check_here("on no list", &good, Session("web"));
    check_here("revoked", &bad, Refused("revoked"));
    check_here("through an intermediate", &deep_good, Session("web"));
    check_here("revoked by an intermediate", &deep_bad, Refused("revoked"));
    check_here(
        "a revoked intermediate",
        &revoked_issuer.leaf(|_| {}),
        Refused("revoked"),
    );
    check_here(
        "an issuer without a list",
        &unlisted.leaf(|_| {}),
        Refused("revocation-unknown"),
    );
    // A list that another has signed, under the issuer's name.
    let forger = Ca::root("listed");
    let forged = [shop.crl(&[], 60), forger.crl(&[], 60)];
    let (verifier, broker) = (world.verifier(Some(forged.to_vec())), world.broker(Some(&forged)));
    check(
        &verifier,
        &broker,
        "a forged list",
        &deep_bad,
        &Refused("crl-invalid"),
    );
    // A list that has expired lets nobody in, not even those that are not on it.
    let expired = [shop.crl(&[&bad.serial], -30)];
    let (verifier, broker) = (
        world.verifier(Some(expired.to_vec())),
        world.broker(Some(&expired)),
    );
    check(
        &verifier,
        &broker,
        "an expired list",
        &good,
        &Refused("crl-expired"),
    );
    check(
        &verifier,
        &broker,
        "revoked by an expired list",
        &bad,
        &Refused("crl-expired"),
    );
}

#[test]
fn a_configuration_that_would_check_nothing_is_refused() {
    let world = World::new();
    let roots = || vec![("shop.example".to_owned(), vec![world.shop.cert.clone()])];
    let make = |roots, crls| ClientVerifier::new(&provider(), roots, crls, LIFE_DAYS_MAX).map(drop);
    assert!(matches!(make(roots(), Some(vec![])), Err(TlsConfigError::NoCrls)));
    let garbage = CertificateRevocationListDer::from(b"garbage".to_vec());
    assert!(matches!(
        make(roots(), Some(vec![garbage])),
        Err(TlsConfigError::Crl { .. })
    ));
    assert!(matches!(make(vec![], None), Err(TlsConfigError::NoRoots { .. })));
    let empty = vec![("shop.example".to_owned(), vec![])];
    assert!(matches!(make(empty, None), Err(TlsConfigError::NoRoots { .. })));
    let leaf = world.shop.leaf(|_| {}).chain.remove(0);
    let not_a_root = vec![("shop.example".to_owned(), vec![leaf])];
    assert!(matches!(make(not_a_root, None), Err(TlsConfigError::Root { .. })));
    let shared = vec![
        roots().remove(0),
        ("partner.example".to_owned(), vec![world.shop.cert.clone()]),
    ];
    assert!(matches!(
        make(shared, None),
        Err(TlsConfigError::RootBoundTwice { .. })
    ));
}
