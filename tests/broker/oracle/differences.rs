//! What our broker deliberately does otherwise than nats-server: each with its reason, and with scripts that show
//! both. docs/protocol.md says the same in the same words.

/// One deliberate difference.
pub struct Difference {
    /// What it is about.
    pub about: &'static str,
    pub theirs: &'static str,
    pub ours: &'static str,
    pub reason: &'static str,
    pub scripts: &'static [Script],
}

/// What clients say at both servers, and what each then says on all connections.
pub struct Script {
    /// Whose connections they are; all have said CONNECT, with headers and no_responders.
    pub connections: &'static [&'static str],
    /// What was said before, and by which connection. `<reply>` is the reply subject of the last message that the
    /// connection has got.
    pub before: &'static [(usize, &'static str)],
    /// What is said now.
    pub says: (usize, &'static str),
    pub ours: &'static [&'static str],
    /// One of these; more than one where nats-server leaves it to chance.
    pub theirs: &'static [&'static [&'static str]],
}

const ONE: &[&str] = &["alpha"];
const TWO: &[&str] = &["alpha", "beta"];

/// All of them. Every answer that is none of these is the same at both.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        about: "Last words",
        theirs: "closes without a word on malformed arguments, on a CONNECT that is no JSON object, on an `-ERR` and on an `HPUB` without `\"headers\": true`",
        ours: "says `'Unknown Protocol Operation'`, or `'Authorization Violation'` for a CONNECT, and closes",
        reason: "whoever reads the client's log learns why",
        scripts: &[
            Script {
                connections: ONE,
                before: &[],
                says: (0, "PUB a.x -1\r\n"),
                ours: &["0 -ERR \"Unknown Protocol Operation\"", "0 closed"],
                theirs: &[&["0 closed"]],
            },
            Script {
                connections: ONE,
                before: &[],
                says: (0, "SUB both\r\n"),
                ours: &["0 -ERR \"Unknown Protocol Operation\"", "0 closed"],
                theirs: &[&["0 closed"]],
            },
            Script {
                connections: ONE,
                before: &[],
                says: (0, "-ERR 'x'\r\n"),
                ours: &["0 -ERR \"Unknown Protocol Operation\"", "0 closed"],
                theirs: &[&["0 closed"]],
            },
            Script {
                connections: ONE,
                before: &[],
                says: (0, "CONNECT [\r\n"),
                ours: &["0 -ERR \"Authorization Violation\"", "0 closed"],
                theirs: &[&["0 closed"]],
            },
            Script {
                connections: ONE,
                before: &[(0, "CONNECT {\"headers\":false,\"no_responders\":false}\r\n")],
                says: (0, "HPUB x 12 12\r\nNATS/1.0\r\n\r\n\r\n"),
                ours: &["0 -ERR \"Unknown Protocol Operation\"", "0 closed"],
                theirs: &[&["0 closed"]],
            },
        ],
    },
    Difference {
        about: "A long line",
        theirs: "has 4,096 bytes for the arguments; past them it says `'maximum control line exceeded'` and closes",
        ours: "has 4,096 bytes for the whole line; past them it says `'Unknown Protocol Operation'` and closes",
        reason: "one of the texts that every client knows",
        scripts: &[Script {
            connections: ONE,
            before: &[],
            // More than 4,096 bytes for both.
            says: (0, "UNSUB <long>\r\n"),
            ours: &["0 -ERR \"Unknown Protocol Operation\"", "0 closed"],
            theirs: &[&["0 -ERR \"maximum control line exceeded\"", "0 closed"]],
        }],
    },
    Difference {
        about: "A long word",
        theirs: "takes any",
        ours: "closes where the id of a subscription has more than 64 bytes, or a reply subject more than 255",
        reason: "both are kept for as long as the subscription or the request lives",
        scripts: &[Script {
            connections: ONE,
            before: &[],
            says: (
                0,
                "SUB both aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff12345\r\n",
            ),
            ours: &["0 -ERR \"Unknown Protocol Operation\"", "0 closed"],
            theirs: &[&[]],
        }],
    },
    Difference {
        about: "CR and LF inside a line",
        theirs: "takes a CR for a part of a word, and a LF right after the verb for a part of the first argument",
        ours: "takes a CR for a space; every LF ends a line",
        reason: "one reading for everybody",
        scripts: &[
            Script {
                connections: ONE,
                before: &[(0, "SUB both 1\r\n")],
                says: (0, "PUB both\r 1\r\nx\r\n"),
                ours: &["0 MSG both 1 headers=\"NATS/1.0\\r\\nExo-Sender: alpha\\r\\n\\r\\n\" \"x\""],
                theirs: &[&["0 -ERR \"Permissions Violation for Publish to \\\"both\\\\r\\\"\""]],
            },
            Script {
                connections: ONE,
                before: &[],
                says: (0, "PUB \nboth 1\r\nx\r\n"),
                ours: &["0 -ERR \"Unknown Protocol Operation\"", "0 closed"],
                theirs: &[&["0 -ERR \"Permissions Violation for Publish to \\\"\\\\nboth\\\"\""]],
            },
        ],
    },
    Difference {
        about: "INFO from a client",
        theirs: "reads it, and closes where it is no JSON object",
        ours: "ignores it",
        reason: "nothing in it could mean anything",
        scripts: &[Script {
            connections: ONE,
            before: &[],
            says: (0, "INFO [\r\n"),
            ours: &[],
            theirs: &[&["0 closed"]],
        }],
    },
    Difference {
        about: "Fields of CONNECT that are not used",
        theirs: "checks them: `protocol` above 1, or `user` that is no string, ends the connection; so does `no_responders` without `headers`",
        ours: "does not read them; `no_responders` without `headers` has no effect",
        reason: "a client is known by its certificate, and newer clients may say more",
        scripts: &[
            Script {
                connections: ONE,
                before: &[],
                says: (0, "CONNECT {\"protocol\":5,\"verbose\":false}\r\n"),
                ours: &[],
                theirs: &[&["0 -ERR \"invalid client protocol\"", "0 closed"]],
            },
            Script {
                connections: ONE,
                before: &[],
                says: (0, "CONNECT {\"user\":5,\"verbose\":false}\r\n"),
                ours: &[],
                theirs: &[&["0 closed"]],
            },
            Script {
                connections: ONE,
                before: &[],
                says: (0, "CONNECT {\"headers\":false,\"verbose\":false}\r\n"),
                ours: &[],
                theirs: &[&["0 -ERR \"no responders requires headers support\"", "0 closed"]],
            },
        ],
    },
    Difference {
        about: "A second CONNECT",
        theirs: "forgets the connection's subscriptions, silently",
        ours: "changes the options that it names, and nothing else",
        reason: "no message is lost without a word",
        scripts: &[Script {
            connections: TWO,
            before: &[(0, "SUB d.x 1\r\n"), (0, "CONNECT {\"verbose\":false}\r\n")],
            says: (1, "PUB d.x 1\r\nx\r\n"),
            ours: &["0 MSG d.x 1 headers=\"NATS/1.0\\r\\nExo-Sender: beta\\r\\n\\r\\n\" \"x\""],
            theirs: &[&[]],
        }],
    },
    Difference {
        about: "Names",
        theirs: "takes any bytes but white space; wildcards in a published name, unless `pedantic`, too; says `'Invalid Subject'` or `'Invalid Publish Subject'` of some",
        ours: "takes the names that a policy can hold: tokens of `A-Z a-z 0-9 _ -`, at most 255 bytes; refuses any other as it refuses a name without a grant",
        reason: "a name that no line of the policy could grant is not granted; one name is written in one way",
        scripts: &[
            Script {
                connections: ONE,
                before: &[],
                says: (0, "SUB d.a/b 1\r\nSUB d.\u{e9} 2\r\nSUB d.x* 3\r\n"),
                ours: &[
                    "0 -ERR \"Permissions Violation for Subscription to \\\"d.a/b\\\"\"",
                    "0 -ERR \"Permissions Violation for Subscription to \\\"d.\u{e9}\\\"\"",
                    "0 -ERR \"Permissions Violation for Subscription to \\\"d.x*\\\"\"",
                ],
                theirs: &[&[]],
            },
            Script {
                connections: ONE,
                before: &[],
                says: (0, "SUB d.>.x 1\r\nPUB a.* 0\r\n\r\n"),
                ours: &[
                    "0 -ERR \"Permissions Violation for Subscription to \\\"d.>.x\\\"\"",
                    "0 -ERR \"Permissions Violation for Publish to \\\"a.*\\\"\"",
                ],
                theirs: &[&["0 -ERR \"Invalid Subject\""]],
            },
            Script {
                connections: ONE,
                before: &[(0, "CONNECT {\"pedantic\":true}\r\n")],
                says: (0, "PUB a.* 0\r\n\r\n"),
                ours: &["0 -ERR \"Permissions Violation for Publish to \\\"a.*\\\"\""],
                theirs: &[&["0 -ERR \"Invalid Publish Subject\""]],
            },
        ],
    },
    Difference {
        about: "A pattern wider than a grant",
        theirs: "grants `a.>` to a user who may subscribe to `a.*`",
        ours: "grants a subscription only if the service may receive every name that it matches",
        reason: "a grant is exact",
        scripts: &[Script {
            connections: TWO,
            before: &[],
            says: (1, "SUB a.> 1\r\n"),
            ours: &["1 -ERR \"Permissions Violation for Subscription to \\\"a.>\\\"\""],
            theirs: &[&[]],
        }],
    },
    Difference {
        about: "A pattern with an exception inside",
        theirs: "grants it, and leaves out the excepted names when it delivers",
        ours: "refuses it",
        reason: "a service should know what it does not hear",
        scripts: &[Script {
            connections: ONE,
            before: &[],
            says: (0, "SUB c.* 1\r\n"),
            ours: &["0 -ERR \"Permissions Violation for Subscription to \\\"c.*\\\"\""],
            theirs: &[&[]],
        }],
    },
    Difference {
        about: "Reply subjects that a client gives",
        theirs: "takes any",
        ours: "takes inboxes only: names that begin with `_`, for which no grant is needed",
        reason: "an answer must not become a message that nobody granted",
        scripts: &[
            Script {
                connections: TWO,
                before: &[(1, "SUB x 1\r\n")],
                says: (0, "PUB x both 1\r\nx\r\n"),
                ours: &["0 -ERR \"Permissions Violation for Publish to \\\"both\\\"\""],
                theirs: &[&["1 MSG x 1 reply=both \"x\""]],
            },
            Script {
                connections: ONE,
                before: &[],
                says: (0, "SUB _mine 1\r\n"),
                ours: &[],
                theirs: &[&["0 -ERR \"Permissions Violation for Subscription to \\\"_mine\\\"\""]],
            },
        ],
    },
    Difference {
        about: "Reply subjects that a receiver sees",
        theirs: "shows the requester's inbox; with `allow_responses` whoever got the request may publish to it",
        ours: "shows a token that answers this one delivery, once, on this connection",
        reason: "nobody else can answer, or learn where others listen",
        scripts: &[
            Script {
                connections: TWO,
                before: &[(1, "SUB x 1\r\n")],
                says: (0, "PUB x _INBOX.c0.1 1\r\nx\r\n"),
                ours: &["1 MSG x 1 reply=_R.… headers=\"NATS/1.0\\r\\nExo-Sender: alpha\\r\\n\\r\\n\" \"x\""],
                theirs: &[&["1 MSG x 1 reply=_INBOX.c0.1 \"x\""]],
            },
            Script {
                connections: TWO,
                before: &[
                    (0, "SUB _INBOX.c0.* 9\r\n"),
                    (1, "SUB x 1\r\nSUB x group 2\r\n"),
                    (0, "PUB x _INBOX.c0.1 1\r\nx\r\n"),
                ],
                // Two deliveries to one connection: two tokens, but one inbox, of which nats-server loses count.
                says: (1, "PUB <reply> 1\r\ny\r\n"),
                ours: &["0 MSG _INBOX.c0.1 9 headers=\"NATS/1.0\\r\\nExo-Sender: beta\\r\\n\\r\\n\" \"y\""],
                theirs: &[&["1 -ERR \"Permissions Violation for Publish to \\\"_INBOX.c0.1\\\"\""]],
            },
        ],
    },
    Difference {
        about: "Who hears an inbox",
        theirs: "everybody who may subscribe to `_INBOX.>`",
        ours: "the connection that subscribed to it, and only the answers to its own requests",
        reason: "answers are nobody else's",
        scripts: &[Script {
            connections: &["alpha", "beta", "beta"],
            before: &[
                (0, "SUB _INBOX.c0.* 9\r\n"),
                (1, "SUB x 1\r\n"),
                (2, "SUB _INBOX.> 1\r\n"),
                (0, "PUB x _INBOX.c0.1 1\r\nx\r\n"),
            ],
            says: (1, "PUB <reply> 1\r\ny\r\n"),
            ours: &["0 MSG _INBOX.c0.1 9 headers=\"NATS/1.0\\r\\nExo-Sender: beta\\r\\n\\r\\n\" \"y\""],
            theirs: &[&["0 MSG _INBOX.c0.1 9 \"y\"", "2 MSG _INBOX.c0.1 1 \"y\""]],
        }],
    },
    Difference {
        about: "A reply subject on an answer",
        theirs: "passes it on",
        ours: "ignores it",
        reason: "an answer that wants an answer is a request, which needs a grant",
        scripts: &[Script {
            connections: TWO,
            before: &[
                (0, "SUB _INBOX.c0.* 9\r\n"),
                (1, "SUB x 1\r\n"),
                (0, "PUB x _INBOX.c0.1 1\r\nx\r\n"),
            ],
            says: (1, "PUB <reply> _INBOX.c1.1 1\r\ny\r\n"),
            ours: &["0 MSG _INBOX.c0.1 9 headers=\"NATS/1.0\\r\\nExo-Sender: beta\\r\\n\\r\\n\" \"y\""],
            theirs: &[&["0 MSG _INBOX.c0.1 9 reply=_INBOX.c1.1 \"y\""]],
        }],
    },
    Difference {
        about: "Queue groups",
        theirs: "are shared by all users who name them",
        ours: "belong to one service",
        reason: "a service could take another's messages by naming its group",
        scripts: &[Script {
            connections: TWO,
            before: &[(0, "SUB both group 1\r\n"), (1, "SUB both group 1\r\n")],
            says: (0, "PUB both 1\r\nx\r\n"),
            ours: &[
                "0 MSG both 1 headers=\"NATS/1.0\\r\\nExo-Sender: alpha\\r\\n\\r\\n\" \"x\"",
                "1 MSG both 1 headers=\"NATS/1.0\\r\\nExo-Sender: alpha\\r\\n\\r\\n\" \"x\"",
            ],
            theirs: &[&["0 MSG both 1 \"x\""], &["1 MSG both 1 \"x\""]],
        }],
    },
    Difference {
        about: "Headers of a delivered message",
        theirs: "passes them on as they came, whatever they are; a message without headers stays one",
        ours: "puts `Exo-Sender` first, and takes out what begins with `Exo-`, a status, and lines that are no header",
        reason: "the receiver can believe `Exo-Sender`, and no two parsers can read the rest in two ways",
        scripts: &[
            Script {
                connections: ONE,
                before: &[(0, "SUB both 1\r\n")],
                says: (0, "PUB both 1\r\nx\r\n"),
                ours: &["0 MSG both 1 headers=\"NATS/1.0\\r\\nExo-Sender: alpha\\r\\n\\r\\n\" \"x\""],
                theirs: &[&["0 MSG both 1 \"x\""]],
            },
            Script {
                connections: ONE,
                before: &[(0, "SUB both 1\r\n")],
                says: (
                    0,
                    "HPUB both 51 52\r\nNATS/1.0 503\r\nexo-sender: root\r\nA: 1\r\nno header\r\n\r\nx\r\n",
                ),
                ours: &[
                    "0 MSG both 1 headers=\"NATS/1.0\\r\\nExo-Sender: alpha\\r\\nA: 1\\r\\n\\r\\n\" \"x\"",
                ],
                theirs: &[&[
                    "0 MSG both 1 headers=\"NATS/1.0 503\\r\\nexo-sender: root\\r\\nA: 1\\r\\nno header\\r\\n\\r\\n\" \"x\"",
                ]],
            },
        ],
    },
    Difference {
        about: "A request that is denied",
        theirs: "says `-ERR`; the requester waits until its time is up",
        ours: "says `-ERR`, and answers the request with a 503",
        reason: "it fails at once, and says which line of the policy decided",
        scripts: &[Script {
            connections: ONE,
            before: &[(0, "SUB _INBOX.c0.* 9\r\n")],
            says: (0, "PUB nope _INBOX.c0.1 1\r\nx\r\n"),
            ours: &[
                "0 -ERR \"Permissions Violation for Publish to \\\"nope\\\"\"",
                "0 MSG _INBOX.c0.1 9 headers=\"NATS/1.0 503\\r\\nExo-Reason: denied\\r\\nExo-Rule: no grant\\r\\nExo-Policy: …\\r\\n\\r\\n\" \"\"",
            ],
            theirs: &[&["0 -ERR \"Permissions Violation for Publish to \\\"nope\\\"\""]],
        }],
    },
    Difference {
        about: "A request whose receiver has left",
        theirs: "says nothing; the requester waits until its time is up",
        ours: "answers it with a 503",
        reason: "it fails at once",
        scripts: &[Script {
            connections: TWO,
            before: &[
                (0, "SUB _INBOX.c0.* 9\r\n"),
                (1, "SUB x 1\r\n"),
                (0, "PUB x _INBOX.c0.1 1\r\nx\r\n"),
            ],
            says: (1, "FOO\r\n"),
            ours: &[
                "0 MSG _INBOX.c0.1 9 headers=\"NATS/1.0 503\\r\\nExo-Reason: receiver-lost\\r\\nExo-Policy: …\\r\\n\\r\\n\" \"\"",
                "1 -ERR \"Unknown Protocol Operation\"",
                "1 closed",
            ],
            theirs: &[&["1 -ERR \"Unknown Protocol Operation\"", "1 closed"]],
        }],
    },
    Difference {
        about: "A 503",
        theirs: "has a header `Nats-Subject`; goes to one of the subscriptions that listen on the inbox, and is not counted towards `UNSUB`'s maximum",
        ours: "has `Exo-Reason` and `Exo-Policy`; goes to all that listen on the inbox, and is counted, like any answer",
        reason: "clients count it too, so both ends agree when a subscription is over",
        scripts: &[
            Script {
                connections: ONE,
                before: &[(0, "SUB _INBOX.c0.* 8\r\nSUB _INBOX.c0.* 9\r\n")],
                says: (0, "PUB c.d.e _INBOX.c0.1 1\r\nx\r\n"),
                ours: &[
                    "0 MSG _INBOX.c0.1 8 headers=\"NATS/1.0 503\\r\\nExo-Reason: no-receiver\\r\\nExo-Policy: …\\r\\n\\r\\n\" \"\"",
                    "0 MSG _INBOX.c0.1 9 headers=\"NATS/1.0 503\\r\\nExo-Reason: no-receiver\\r\\nExo-Policy: …\\r\\n\\r\\n\" \"\"",
                ],
                theirs: &[
                    &[
                        "0 MSG _INBOX.c0.1 8 headers=\"NATS/1.0 503\\r\\nNats-Subject: c.d.e\\r\\n\\r\\n\" \"\"",
                    ],
                    &[
                        "0 MSG _INBOX.c0.1 9 headers=\"NATS/1.0 503\\r\\nNats-Subject: c.d.e\\r\\n\\r\\n\" \"\"",
                    ],
                ],
            },
            Script {
                connections: ONE,
                before: &[
                    (0, "SUB _INBOX.c0.* 9\r\nUNSUB 9 1\r\n"),
                    (0, "PUB c.d.e _INBOX.c0.1 1\r\nx\r\n"),
                ],
                says: (0, "PUB c.d.e _INBOX.c0.2 1\r\nx\r\n"),
                ours: &[],
                theirs: &[&[
                    "0 MSG _INBOX.c0.2 9 headers=\"NATS/1.0 503\\r\\nNats-Subject: c.d.e\\r\\n\\r\\n\" \"\"",
                ]],
            },
        ],
    },
    Difference {
        about: "Order between errors and messages",
        theirs: "says `+OK` and `-ERR` in their place among the messages that the client gets",
        ours: "may say them before messages that the same write led to; never after the `PONG` of a later `PING`",
        reason: "the messages of one write are handed over together",
        scripts: &[Script {
            connections: ONE,
            before: &[(0, "SUB both 1\r\n")],
            says: (0, "PUB both 1\r\nx\r\nPUB nope 1\r\ny\r\nPING\r\n"),
            ours: &[
                "0 -ERR \"Permissions Violation for Publish to \\\"nope\\\"\"",
                "0 MSG both 1 headers=\"NATS/1.0\\r\\nExo-Sender: alpha\\r\\n\\r\\n\" \"x\"",
                "0 PONG",
            ],
            theirs: &[&[
                "0 MSG both 1 \"x\"",
                "0 -ERR \"Permissions Violation for Publish to \\\"nope\\\"\"",
                "0 PONG",
            ]],
        }],
    },
];
