//! What TLS itself must refuse: other versions, no certificate, the wrong certificate, shortcuts.

use super::*;

#[test]
fn the_brokers_own_certificate_is_no_clients() {
    let broker = Broker::dev(POLICY);
    let before = broker.status();
    let tls = crate::support::client_tls(
        &broker.cert("ca.pem"),
        &broker.cert("server.pem"),
        &broker.cert("server.key"),
    );
    assert!(hear(broker.address(), &tls).is_none());
    check_refused(&broker, "the server's certificate", "uri-san-count", &before);
}

#[test]
fn without_a_certificate_nobody_comes_in() {
    let broker = Broker::dev(POLICY);
    let before = broker.status();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca(&broker)).expect("a root");
    let tls = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert!(hear(broker.address(), &Arc::new(tls)).is_none());
    check_refused(&broker, "no certificate", "no-certificate", &before);
}

#[test]
fn tls_1_2_is_refused() {
    let broker = Broker::dev(POLICY);
    let before = broker.status();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca(&broker)).expect("a root");
    let tls = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("ring has TLS 1.2")
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert!(hear(broker.address(), &Arc::new(tls)).is_none());
    check_refused(&broker, "TLS 1.2", "tls-incompatible", &before);
}

#[test]
fn nothing_is_resumed_and_nothing_comes_early() {
    let broker = Broker::dev(POLICY);
    // Its session cache and its wish for early data are the same for all its connections.
    let mut tls = ClientConfig::clone(&broker.tls("web"));
    tls.enable_early_data = true;
    let tls = Arc::new(tls);
    for _ in 0..3 {
        let mut web = Raw::connect(broker.address(), &tls).expect("a handshake");
        web.hello();
        assert_eq!(web.tls().handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(web.tls().tls13_tickets_received(), 0);
        assert!(!web.tls().is_early_data_accepted());
        assert_eq!(
            web.tls().protocol_version(),
            Some(rustls::ProtocolVersion::TLSv1_3)
        );
    }
}
