//! Keys of every kind, made by openssl.

use super::*;

/// What the openssl command, as a client with this key, gets from the broker: INFO and PONG, or nothing.
fn asked_by_openssl(broker: &Broker, folder: &Path, certificate: &str, key: &str) -> bool {
    let address = broker.address().to_string();
    let mut client = Command::new("openssl")
        .current_dir(folder)
        .args([
            "s_client",
            "-quiet",
            "-no_ign_eof",
            "-tls1_3",
            "-cipher",
            "ALL:@SECLEVEL=0",
        ])
        .args(["-connect", &address, "-cert", certificate, "-key", key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is there");
    let mut input = client.stdin.take().expect("it was piped");
    // It may have been refused already.
    drop(input.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n"));
    let output = BufReader::new(client.stdout.take().expect("it was piped"));
    let is_in = output.lines().map_while(Result::ok).any(|line| line == "PONG");
    drop(input);
    client.kill().expect("it is our child");
    client.wait().expect("it is our child");
    is_in
}

#[test]
fn keys_of_every_kind() {
    if !pki::has_openssl() {
        return;
    }
    let world = World::new();
    let broker = world.broker(None);
    let folder = world.folder.path();
    let write =
        |file: &str, text: &str| std::fs::write(folder.join(file), text).expect("the folder takes a file");
    write("shop.key", &world.shop.key_pem());
    write("leaf.cnf", LEAF_EXTENSIONS);
    let kinds = [
        ("rsa1024", "RSA -pkeyopt rsa_keygen_bits:1024", false),
        ("rsa2048", "RSA -pkeyopt rsa_keygen_bits:2048", true),
        ("rsa3072", "RSA -pkeyopt rsa_keygen_bits:3072", true),
        ("p256", "EC -pkeyopt ec_paramgen_curve:P-256", true),
        ("p384", "EC -pkeyopt ec_paramgen_curve:P-384", true),
        ("p521", "EC -pkeyopt ec_paramgen_curve:P-521", false),
        ("k256", "EC -pkeyopt ec_paramgen_curve:secp256k1", false),
        ("ed25519", "ED25519", true),
        ("ed448", "ED448", false),
    ];
    for (kind, algorithm, is_good) in kinds {
        pki::openssl(folder, &format!("genpkey -algorithm {algorithm} -out {kind}.key"));
        pki::openssl(
            folder,
            &format!("req -new -key {kind}.key -out leaf.csr -subj /CN=leaf"),
        );
        let sign = |ca: &str, out: &str| {
            let sign = format!(
                "x509 -req -in leaf.csr -CA {ca}.pem -CAkey {ca}.key -days 1 -extfile leaf.cnf -out {out}"
            );
            pki::openssl(folder, &sign);
        };
        // The leaf's own key: whether the handshake's signature is believed.
        sign("shop", "leaf.pem");
        let refused_before = refused(&broker);
        let is_in = asked_by_openssl(&broker, folder, "leaf.pem", &format!("{kind}.key"));
        assert_eq!(is_in, is_good, "a leaf of {kind}");
        if !is_good {
            wait_for("the refusal to be counted", || {
                refused(&broker) == refused_before + 1
            });
        }
        // The root's: whether its signature on a leaf is.
        let root = format!("req -x509 -new -key {kind}.key -out {kind}.pem -days 2 -subj /CN={kind}");
        pki::openssl(folder, &root);
        sign(kind, "l.pem");
        let read = |file: &str| CertificateDer::from_pem_file(folder.join(file)).expect("a certificate");
        let roots = vec![("shop.example".to_owned(), vec![read(&format!("{kind}.pem"))])];
        let verifier = ClientVerifier::new(&provider(), roots, None, LIFE_DAYS_MAX);
        let identity = verifier.map(|verifier| {
            let identity = verifier.identify(&[read("l.pem")], now_unix_s());
            identity
                .map(|identity| identity.role.to_string())
                .map_err(|refused| refused.rule)
        });
        match (is_good, identity) {
            (true, Ok(Ok(role))) => assert_eq!(role, "web", "a root of {kind}"),
            (false, Ok(Err("signature-algorithm" | "bad-signature"))) => {}
            (_, other) => panic!("a root of {kind}: {other:?}"),
        }
    }
}

const LEAF_EXTENSIONS: &str = "basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = URI:spiffe://shop.example/web
";
