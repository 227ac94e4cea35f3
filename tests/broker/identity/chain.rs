//! Every rule of a chain: purposes, lives, issuers, extensions.

use super::*;

#[test]
fn every_rule_of_a_chain() {
    let world = World::new();
    let (verifier, broker) = (world.verifier(None), world.broker(None));
    let shop = &world.shop;
    let check =
        |name: &str, shown: &Shown, expected: Outcome| check(&verifier, &broker, name, shown, &expected);
    let leaf = |change: &dyn Fn(&mut CertificateParams)| shop.leaf(|params| change(params));
    let intermediate = shop.intermediate("intermediate", |_| {});

    check("a good leaf", &leaf(&|_| {}), Session("web"));
    check(
        "through an intermediate",
        &intermediate.leaf(|_| {}),
        Session("web"),
    );
    let second = intermediate.intermediate("second", |_| {});
    check("through two intermediates", &second.leaf(|_| {}), Session("web"));

    // Names.
    check("no SAN", &leaf(&drop_san), Refused("uri-san-count"));
    let only_cn = leaf(&|params| {
        drop_san(params);
        params.distinguished_name.push(DnType::CommonName, WEB);
    });
    check("a CN that is an ID", &only_cn, Refused("uri-san-count"));
    let dns = SanType::DnsName("web.shop.example".try_into().expect("a DNS name"));
    check(
        "only a DNS SAN",
        &leaf(&|p| p.subject_alt_names = vec![dns.clone()]),
        Refused("uri-san-count"),
    );
    check(
        "a URI and a DNS SAN",
        &leaf(&|p| p.subject_alt_names.push(dns.clone())),
        Session("web"),
    );
    let two = &|p: &mut CertificateParams| p.subject_alt_names.push(uri("spiffe://shop.example/orders"));
    check("two URI SANs", &leaf(two), Refused("uri-san-count"));
    let twice = &|p: &mut CertificateParams| p.subject_alt_names.push(uri(WEB));
    check("the same URI SAN twice", &leaf(twice), Refused("uri-san-count"));
    let foreign_uri = &|p: &mut CertificateParams| p.subject_alt_names.push(uri("https://shop.example/"));
    check(
        "a URI SAN that is no SPIFFE ID beside one",
        &leaf(foreign_uri),
        Refused("uri-san-count"),
    );
    let two_extensions = leaf(&|p| p.custom_extensions = vec![raw_uri(b"spiffe://shop.example/orders")]);
    check(
        "two SAN extensions",
        &two_extensions,
        Refused("certificate-encoding"),
    );
    let many = leaf(&|p| {
        let name = |n: u32| SanType::DnsName(format!("n{n}.shop.example").try_into().expect("a DNS name"));
        p.subject_alt_names.extend((0..1_000).map(name));
    });
    check("a thousand DNS SANs and one URI", &many, Session("web"));
    let many = leaf(&|p| {
        p.subject_alt_names = (0..500)
            .map(|n| uri(&format!("spiffe://shop.example/s{n}")))
            .collect()
    });
    check("five hundred URI SANs", &many, Refused("uri-san-count"));
    let malformed = leaf(&|p| {
        drop_san(p);
        p.custom_extensions = vec![CustomExtension::from_oid_content(
            pki::SAN,
            b"\x30\x05\x86".to_vec(),
        )];
    });
    check(
        "a SAN extension cut short",
        &malformed,
        Refused("certificate-encoding"),
    );

    // Purposes.
    let eku = |purposes: Vec<ExtendedKeyUsagePurpose>| leaf(&|p| p.extended_key_usages = purposes.clone());
    check("no EKU", &eku(vec![]), Refused("eku-client-auth"));
    check(
        "serverAuth only",
        &eku(vec![ExtendedKeyUsagePurpose::ServerAuth]),
        Refused("eku-client-auth"),
    );
    check(
        "anyExtendedKeyUsage",
        &eku(vec![ExtendedKeyUsagePurpose::Any]),
        Refused("eku-client-auth"),
    );
    let both = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    check("serverAuth and clientAuth", &eku(both), Session("web"));
    let usage = |usages: Vec<KeyUsagePurpose>| leaf(&|p| p.key_usages = usages.clone());
    check("no keyUsage", &usage(vec![]), Refused("key-usage"));
    check(
        "keyEncipherment only",
        &usage(vec![KeyUsagePurpose::KeyEncipherment]),
        Refused("key-usage"),
    );
    let signs = |more| vec![KeyUsagePurpose::DigitalSignature, more];
    check(
        "keyCertSign",
        &usage(signs(KeyUsagePurpose::KeyCertSign)),
        Refused("key-usage"),
    );
    check(
        "cRLSign",
        &usage(signs(KeyUsagePurpose::CrlSign)),
        Refused("key-usage"),
    );
    check(
        "keyEncipherment too",
        &usage(signs(KeyUsagePurpose::KeyEncipherment)),
        Session("web"),
    );
    let ca = leaf(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    check("a leaf that is a CA", &ca, Refused("ca-certificate"));
    check(
        "without basicConstraints",
        &leaf(&|p| p.is_ca = IsCa::NoCa),
        Session("web"),
    );

    // Life.
    let lives = |from: Duration, to: Duration| {
        leaf(&|p| {
            let now = p.not_before + Duration::minutes(5);
            (p.not_before, p.not_after) = (now + from, now + to);
        })
    };
    let (hour, days) = (Duration::hours(1), Duration::days(i64::from(LIFE_DAYS_MAX)));
    check(
        "a hundred years",
        &lives(-hour, Duration::days(36_500)),
        Refused("lifetime"),
    );
    check(
        "one second more than the longest life",
        &lives(-hour, days - hour + Duration::seconds(1)),
        Refused("lifetime"),
    );
    check("the longest life", &lives(-hour, days - hour), Session("web"));
    check("expired", &lives(-2 * hour, -hour), Refused("expired"));
    check("not yet valid", &lives(hour, 2 * hour), Refused("not-yet-valid"));

    // Chains.
    check(
        "a foreign root",
        &world.stranger.leaf(|_| {}),
        Refused("unknown-issuer"),
    );
    check(
        "a root bound to another domain",
        &world.partner.leaf(|_| {}),
        Refused("unknown-issuer"),
    );
    let partners = world
        .partner
        .leaf(|p| p.subject_alt_names = vec![uri("spiffe://partner.example/web")]);
    check(
        "another domain, by its own root",
        &partners,
        NotAdmitted("spiffe://partner.example/web", "wrong-trust-domain"),
    );
    let mints = intermediate.leaf(|p| p.subject_alt_names = vec![uri("spiffe://partner.example/web")]);
    check(
        "an intermediate that mints a foreign domain",
        &mints,
        Refused("unknown-issuer"),
    );
    let unbound = leaf(&|p| p.subject_alt_names = vec![uri("spiffe://other.example/web")]);
    check(
        "a domain that no root is bound to",
        &unbound,
        Refused("trust-domain"),
    );
    check("self-signed", &self_signed(), Refused("unknown-issuer"));
    let mut alone = intermediate.leaf(|_| {});
    alone.chain.truncate(1);
    check("without its intermediate", &alone, Refused("unknown-issuer"));
    let mut swapped = intermediate.leaf(|_| {});
    swapped.chain[1] = shop.intermediate("intermediate", |_| {}).cert;
    check(
        "an intermediate of the same name and another key",
        &swapped,
        Refused("bad-signature"),
    );
    let not_ca = shop.intermediate("not a CA", |p| p.is_ca = IsCa::ExplicitNoCa);
    check(
        "an intermediate that is no CA",
        &not_ca.leaf(|_| {}),
        Refused("issuer-not-ca"),
    );
    let no_sign = shop.intermediate("may not sign", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign]);
    check(
        "an intermediate without keyCertSign",
        &no_sign.leaf(|_| {}),
        Refused("issuer-key-usage"),
    );
    let no_path = shop.intermediate("path 0", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    check("a path of length 0", &no_path.leaf(|_| {}), Session("web"));
    let beyond = no_path.intermediate("beyond", |_| {});
    check(
        "a path beyond its length",
        &beyond.leaf(|_| {}),
        Refused("path-length"),
    );
    let expired = shop.intermediate("expired", |p| {
        p.not_after = p.not_before + Duration::minutes(1);
    });
    check(
        "an expired intermediate",
        &expired.leaf(|_| {}),
        Refused("expired"),
    );
    let servers = shop.intermediate("servers only", |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
    });
    check(
        "an intermediate for servers",
        &servers.leaf(|_| {}),
        Refused("eku-client-auth"),
    );
    let dns_only = shop.intermediate("DNS only", |p| {
        p.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("shop.example".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    check(
        "name constraints that are met",
        &dns_only.leaf(|p| p.subject_alt_names.push(dns.clone())),
        Session("web"),
    );
    let other_dns = SanType::DnsName("web.other.example".try_into().expect("a DNS name"));
    let violates = dns_only.leaf(|p| p.subject_alt_names.push(other_dns));
    check(
        "name constraints that are not",
        &violates,
        Refused("name-constraints"),
    );
    // Nobody can tell yet what a constraint on URIs would allow, so that none is allowed.
    let uri_constraint = tlv(0x30, &tlv(0xa0, &tlv(0x30, &tlv(0x86, b"shop.example"))));
    let constrained = shop.intermediate("URIs", |p| {
        let mut extension = CustomExtension::from_oid_content(pki::NAME_CONSTRAINTS, uri_constraint);
        extension.set_criticality(true);
        p.custom_extensions = vec![extension];
    });
    check(
        "name constraints on URIs",
        &constrained.leaf(|_| {}),
        Refused("name-constraints"),
    );
    let mut padded = leaf(&|_| {});
    padded.chain.extend((0..3).map(|_| world.stranger.cert.clone()));
    check(
        "certificates in the chain that nobody needs",
        &padded,
        Session("web"),
    );
    let mut deep = shop.intermediate("1", |_| {});
    for number in 2..8 {
        deep = deep.intermediate(&number.to_string(), |_| {});
    }
    check("a chain too deep", &deep.leaf(|_| {}), Refused("path-length"));

    // Extensions, serial numbers, sizes.
    let unknown = |is_critical: bool| {
        leaf(&|p| {
            let mut extension =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], b"\x05\x00".to_vec());
            extension.set_criticality(is_critical);
            p.custom_extensions = vec![extension];
        })
    };
    check(
        "an unknown critical extension",
        &unknown(true),
        Refused("critical-extension"),
    );
    check("an unknown extension", &unknown(false), Session("web"));
    let large = |bytes: usize| {
        leaf(&|p| {
            let oid = &[1, 3, 6, 1, 4, 1, 99_999, 1];
            p.custom_extensions = vec![CustomExtension::from_oid_content(oid, vec![4; bytes])];
        })
    };
    check("a certificate of 30 KB", &large(30_000), Session("web"));
    let mut many = large(30_000);
    many.chain.extend(vec![many.chain[0].clone(); 5]);
    for (name, shown) in [
        ("a certificate of 100 KB", large(100_000)),
        ("a chain of 180 KB", many),
    ] {
        let before = broker.status();
        let tls = Arc::new(tls_showing(&broker.cert("ca.pem"), &shown));
        assert!(hear(broker.address(), &tls).is_none(), "{name}");
        check_refused(&broker, name, "handshake-size", &before);
    }
    let serial = |bytes: usize| {
        leaf(&|p| {
            let serial: Vec<u8> = (0..bytes).map(|n| n as u8 | 0x40).collect();
            p.serial_number = Some(SerialNumber::from_slice(&serial));
        })
    };
    check("a serial number of 20 bytes", &serial(20), Session("web"));
    check("a serial number of 21 bytes", &serial(21), Refused("serial"));

    // Keys that are not the certificate's.
    let mut stolen = leaf(&|_| {});
    stolen.key = KeyPair::generate().expect("a key");
    let before = broker.status();
    assert!(
        hear(
            broker.address(),
            &Arc::new(tls_showing(&broker.cert("ca.pem"), &stolen))
        )
        .is_none()
    );
    check_refused(&broker, "a certificate without its key", "bad-signature", &before);
    let ed25519 = shop.leaf_of(
        KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key"),
        |_| {},
    );
    check("Ed25519", &ed25519, Session("web"));
    let p384 = shop.leaf_of(
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key"),
        |_| {},
    );
    check("P-384", &p384, Session("web"));
}

fn self_signed() -> Shown {
    let key = KeyPair::generate().expect("a key");
    let params = pki::leaf_params();
    Shown {
        chain: vec![params.self_signed(&key).expect("a certificate").der().clone()],
        serial: params.serial_number.expect("set"),
        key,
    }
}

#[test]
fn an_expired_root_vouches_for_nobody() {
    let old = Ca::root_with("root", |p| p.not_after = p.not_before + Duration::minutes(1));
    let new = old.again("root", |_| {});
    let ask = |roots: &[&Ca]| {
        let roots = roots.iter().map(|root| root.cert.clone()).collect();
        let roots = vec![("shop.example".to_owned(), roots)];
        let verifier = ClientVerifier::new(&provider(), roots, None, LIFE_DAYS_MAX).expect("a root");
        asked(&verifier, &old.leaf(|_| {}))
    };
    assert_eq!(ask(&[&old]), Err("expired"));
    assert_eq!(
        ask(&[&old, &new]),
        Ok(WEB.to_owned()),
        "renewed with the same key"
    );
    assert_eq!(ask(&[&new, &old]), Ok(WEB.to_owned()));
}

#[test]
fn an_identity_expires_with_the_first_of_its_chain() {
    let root = Ca::root_with("root", |p| p.not_after = p.not_before + Duration::hours(3));
    let intermediate = root.intermediate("short", |p| p.not_after = p.not_before + Duration::hours(2));
    let roots = vec![("shop.example".to_owned(), vec![root.cert.clone()])];
    let verifier = ClientVerifier::new(&provider(), roots, None, LIFE_DAYS_MAX).expect("a root");
    let expiry_h = |shown: &Shown| {
        let identity = verifier
            .identify(&shown.chain, now_unix_s())
            .expect("a good chain");
        assert_eq!(identity.role, Role::Service("web".into()));
        (identity.expires_unix_s - now_unix_s() + 300 + 1_800) / 3_600
    };
    assert_eq!(
        expiry_h(&root.leaf(|p| p.not_after = p.not_before + Duration::hours(1))),
        1
    );
    assert_eq!(expiry_h(&intermediate.leaf(|_| {})), 2);
    assert_eq!(expiry_h(&root.leaf(|_| {})), 3);
}
