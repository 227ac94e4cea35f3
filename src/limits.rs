//! Every bound of the broker, on one page: each with its unit in its name, and its reason.

/// A message name, in bytes. A name is a routing key that people read and type, not a payload.
pub const NAME_BYTES_MAX: usize = 255;

/// A SPIFFE ID, in bytes (SPIFFE-ID, section 2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;

/// A SPIFFE trust domain, in bytes (SPIFFE-ID, section 2.1).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// The name of a service, zone or operator, in bytes: a DNS label, since it becomes a host name, a queue group
/// and a file name sooner or later.
pub const LABEL_BYTES_MAX: usize = 63;

/// A certificate's serial number, in bytes (RFC 5280, section 4.1.2.2).
pub const CERT_SERIAL_BYTES_MAX: usize = 20;

/// How much of a text that came from outside is repeated in a refusal, in bytes. A line of a log, not more.
pub const QUOTED_BYTES_MAX: usize = 128;

/// The life of a client's certificate, in days, unless the configuration says otherwise. The CA/Browser
/// Forum's limit of the years in which such certificates were still made by hand.
pub const CERT_LIFE_DAYS_MAX: u32 = 398;

/// The life of a certificate issued by `exocom certs`, in days.
pub const CERT_LIFE_DAYS_ISSUED: u32 = 7;

/// The life of the root made by `exocom certs init`, in days: ten years.
pub const ROOT_LIFE_DAYS_ISSUED: u32 = 3652;

/// How far before its making a certificate of ours begins, in seconds: clocks of machines differ.
pub const CERT_BACKDATE_S: i64 = 300;

/// A PEM file of certificates or a key, in bytes: some 500 certificates, more than any chain or root set.
pub const PEM_FILE_BYTES_MAX: u64 = 1 << 20;

/// A file of certificate revocation lists, in bytes: some 400,000 revoked certificates.
pub const CRL_FILE_BYTES_MAX: u64 = 16 << 20;

/// A policy, all its files together, in bytes: some 10,000 services with 100 names each.
pub const POLICY_BYTES_MAX: usize = 64 << 20;

/// One protocol line without its payload, in bytes; what nats-server allows, and clients expect.
pub const CONTROL_LINE_BYTES_MAX: usize = 4096;

/// A payload with its headers, in bytes, unless the configuration says otherwise; announced in INFO.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The most that the configuration may allow for a payload: a turn holds one in memory, whole.
pub const PAYLOAD_BYTES_MAX_CONFIGURABLE: usize = 64 << 20;

/// The header block of one message, in bytes: every delivery reads it again.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// A subscription's id, in bytes. Clients count from 1; nothing needs more.
pub const SID_BYTES_MAX: usize = 64;

/// A reply subject or an inbox pattern, in bytes.
pub const INBOX_BYTES_MAX: usize = 255;

/// Subscriptions of one connection, its inboxes included.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 10_000;

/// Subscriptions of one connection to one pattern. Each gets every message of its own, and so costs its publisher
/// another delivery; a client that wants more hands one message on by itself.
pub const SUBSCRIPTIONS_PER_PATTERN_MAX: usize = 256;

/// Tokens of the patterns of one connection's subscriptions together: each may take half a KiB of the directory.
pub const SUBSCRIPTION_TOKENS_PER_CONNECTION_MAX: usize = 1 << 16;

/// Tokens of the patterns of all subscriptions of one service together.
pub const SUBSCRIPTION_TOKENS_PER_SERVICE_MAX: usize = 1 << 20;

/// Requests delivered to one connection and not answered yet. Some 8 MiB at the most.
pub const PENDING_REPLIES_PER_CONNECTION_MAX: usize = 65_536;

/// Requests of one service that wait for an answer, over all its connections: some 100 MiB with those who are asked.
pub const REQUESTS_PER_SERVICE_MAX: usize = 1 << 18;

/// Places in the tables of one service's connections for requests that wait for its answers, some 170 MiB.
pub const PENDING_REPLIES_PER_SERVICE_MAX: usize = 1 << 20;

/// Places that a table without requests keeps.
pub const PENDING_REPLIES_KEPT: usize = 64;

/// Bytes waiting for one connection's socket; past it, messages to that connection are dropped and counted.
pub const OUTBOX_BYTES_MAX: usize = 16 << 20;

/// Bytes waiting for all sockets together. Near it one connection may hold ever less.
pub const OUTBOXES_BYTES_MAX: usize = 1 << 30;

/// Bytes that one connection's outbox may hold however full the others are.
pub const OUTBOX_BYTES_MIN: usize = 64 << 10;

/// Bytes of answers to a client's own operations (`PONG`, `-ERR`) that may wait beyond what its outbox may hold.
/// Past it, the client is not read until it reads.
pub const OUTBOX_OWN_BYTES_MAX: usize = 256 << 10;

/// Bytes waiting for one connection's socket from which its publishers are made to wait, for a bounded time.
pub const OUTBOX_BYTES_BACK_PRESSURE: usize = 256 << 10;

/// How long a publisher waits for the outboxes of all its receivers to drain, in milliseconds. A receiver that took
/// longer is waited for again only when its outbox has been empty.
pub const BACK_PRESSURE_MS_MAX: u64 = 50;

/// Message names whose decision and route a connection keeps at hand. Past it, it starts afresh.
pub const CACHED_ROUTES_PER_CONNECTION_MAX: usize = 16_384;

/// Receivers of all routes that a connection keeps at hand, some 6 MiB: one message may have thousands, and one
/// connection may send thousands of messages. Past it, the connection starts afresh.
pub const CACHED_TARGETS_PER_CONNECTION_MAX: usize = 1 << 18;

/// Routes, with their receivers, that all connections of one service keep at hand, some 300 MiB. Past it, a
/// connection that would keep one more starts afresh.
pub const CACHED_ROUTES_PER_SERVICE_MAX: usize = 1 << 20;

/// Flows of one connection that are counted apart. Past it, they are counted under the name `>`.
pub const FLOWS_PER_CONNECTION_MAX: usize = 10_000;

/// Of those, flows of names that the policy denies. A client can make names up: some are enough to see what it tries.
pub const DENIED_FLOWS_PER_CONNECTION_MAX: usize = 100;

/// Flows of one sender's open connections together, some 30 MiB. Past it, they are counted under the name `>`.
pub const FLOWS_PER_SENDER_MAX: usize = 100_000;

/// Flows of connections that have ended whose response times are kept apart, 700 bytes each; past it, those that one
/// service has answered are counted together.
pub const RESPONSE_TIMES_KEPT_MAX: usize = 10_000;

/// Flows of connections that have ended, kept apart for `status`; past it, they are counted under the name `>`.
pub const FLOWS_KEPT_MAX: usize = 200_000;

/// Of those, flows of one sender: one that makes up names must not make the others' indistinct.
pub const FLOWS_KEPT_PER_SENDER_MAX: usize = 10_000;

/// Deliveries a turn gathers before it hands them to their receivers: a fan-out must not fill the memory.
pub const DELIVERIES_PER_BATCH_MAX: usize = 65_536;

/// Inbox subscriptions with a wildcard of one connection: each is tried for each answer. Clients use one. The same
/// for those to one inbox without: each hears each answer.
pub const INBOX_PATTERNS_PER_CONNECTION_MAX: usize = 64;

/// Diagnostics of one policy that are kept; further ones are counted. Nobody reads more, and a generated file
/// can repeat one mistake a million times.
pub const POLICY_DIAGNOSTICS_MAX: usize = 200;

/// Branches of one search for a name that one policy allows and another does not. Only a policy that spells out every
/// token of one letter at one place branches at all; without this bound it could do so without end.
pub const REVIEW_STEPS_MAX: usize = 10_000;

/// Denials of a log from which grants are suggested; further ones are counted. Nobody judges more.
pub const SUGGEST_DENIALS_MAX: usize = 100_000;

/// A line of a log that is read, in bytes: a longer one is none of ours.
pub const LOG_LINE_BYTES_MAX: u64 = 64 << 10;

/// The shortest time that a policy can name, in milliseconds: zero would mean "never" to one reader and "at once"
/// to the next.
pub const POLICY_TIME_MS_MIN: u64 = 1;

/// `reply-within`, in milliseconds: one hour. A pending reply holds memory of its connection; longer work is an
/// event with an answer of its own.
pub const REPLY_WITHIN_MS_MAX: u64 = 3_600_000;

/// `ack-within`, in milliseconds: one day. Until then a message of a stuck receiver is not given to another.
pub const ACK_WITHIN_MS_MAX: u64 = 86_400_000;

/// `attempts`, how often one message is tried. Past it a message is poison, and retrying only spreads it.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// `new-flow-after`, in milliseconds: a day unless the policy says otherwise, since most that happens at all happens
/// within one.
pub const NEW_FLOW_AFTER_MS: u64 = 86_400_000;

/// `new-flow-after`, at the least: within one tick of the detectors.
pub const NEW_FLOW_AFTER_MS_MIN: u64 = 1_000;

/// `new-flow-after`, at the most: 60 days, so that jobs of once a month are known by then.
pub const NEW_FLOW_AFTER_MS_MAX: u64 = 60 * 86_400_000;

/// `limits`, the number of messages in one unit of time: more than one connection can send in a second.
pub const LIMIT_RATE_MAX: u32 = 10_000_000;

/// `limits`, how many messages may come at once.
pub const LIMIT_BURST_MAX: u32 = 10_000_000;

/// `backoff`, either end, in milliseconds: one day.
pub const BACKOFF_MS_MAX: u64 = 86_400_000;

/// `expires`, in milliseconds: 30 days. The message log is a buffer, not an archive.
pub const EXPIRES_MS_MAX: u64 = 2_592_000_000;

/// `payload-max`, in bytes: 64 MiB, the most that the NATS protocol's clients expect of a server.
pub const POLICY_PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// Ciphertext read from a socket in one turn, in bytes. Larger reads swallow whole windows of a pipelining
/// client, make both ends run in lockstep, and ruin the 99th percentile of response times.
pub const READ_BYTES_PER_TURN: usize = 16 << 10;

/// The same while the client has sent more than its window: each write to its receivers then carries more, and costs
/// the system little more.
pub const READ_BYTES_PER_TURN_MAX: usize = 64 << 10;

/// Bytes that wait to be read from which a turn reads [`READ_BYTES_PER_TURN_MAX`].
pub const BACKLOG_BYTES: u64 = 32 << 10;

/// Turns that a connection takes before it lets the others of its thread have theirs. Each turn asks the system who
/// else has something to say, which costs a tenth of the turn.
pub const TURNS_IN_A_ROW_MAX: u32 = 4;

/// Plaintext encrypted ahead of the socket, in bytes: what a blocked socket holds twice.
pub const ENCRYPTED_AHEAD_BYTES_MAX: usize = 64 << 10;

/// From accept to the end of the TLS handshake, in milliseconds, unless the configuration says otherwise.
pub const HANDSHAKE_MS_MAX: u64 = 5_000;

/// From the handshake to `CONNECT`, in milliseconds.
pub const CONNECT_MS_MAX: u64 = 5_000;

/// From the first byte of an operation to its last, in milliseconds, and longer by the time that its bytes take at
/// the slowest rate: half of a message holds as much memory as the whole.
pub const OPERATION_MS_MAX: u64 = 10_000;

/// The slowest rate at which a message may come, in bytes a second.
pub const OPERATION_BYTES_PER_S_MIN: u64 = 64 << 10;

/// Of the time that a handshake may take, this part it has undisturbed: then it gives way to a newcomer where there is no
/// other room. 500 ms of 5 s: a hundred times what it takes, and a slow link's three round trips.
pub const HANDSHAKE_UNDISTURBED_PART: u64 = 10;

/// Handshakes under way, in all, unless the configuration says otherwise. Some 20 KiB each.
pub const HALF_OPEN_MAX: usize = 2_048;

/// Handshakes under way from one address, unless the configuration says otherwise.
pub const HALF_OPEN_PER_ADDRESS_MAX: usize = 256;

/// Connections in all, unless the configuration says otherwise.
pub const CONNECTIONS_MAX: usize = 50_000;

/// Silence after which a client is asked whether it is still there, in milliseconds.
pub const PING_AFTER_MS: u64 = 60_000;

/// Unanswered `PING`s after which a connection is cut as stale.
pub const PINGS_UNANSWERED_MAX: u8 = 2;

/// How often each thread looks after its connections, in milliseconds: expiry of requests, silence, a changed
/// policy.
pub const TICK_MS: u64 = 100;

/// How long ahead of its certificate's expiry a connection is told of in the log, in seconds, at the most.
pub const EXPIRY_NOTICE_S_MAX: i64 = 3_600;

/// The same as a part of what is left when the connection begins: one tenth. Certificates that live for an hour would
/// be told of all the time.
pub const EXPIRY_NOTICE_PART: i64 = 10;

/// How long a thread asks about the authority of its connections before everything else has its turn, in microseconds.
pub const AUTHORITY_SLICE_US: u64 = 500;

/// Connections that are given something to do meanwhile, such as to end: what they do is time of everything else too.
pub const AUTHORITY_SLICE_WOKEN: usize = 8;

/// How long a revocation waits until those it cuts off have ended, in milliseconds.
pub const REVOKE_MS_MAX: u64 = 5_000;

/// Entries of the list of what operators have revoked.
pub const REVOKED_MAX: usize = 100_000;

/// The file of that list, in bytes: its entries with the longest reasons.
pub const REVOKED_BYTES_MAX: u64 = 256 << 20;

/// Entries of the quarantine: more than people look after.
pub const QUARANTINE_MAX: usize = 1_000;

/// Services that alarms may hold at once, unless the configuration says otherwise: one that is odd is held, and where many
/// are at once, somebody should look first.
pub const QUARANTINED_BY_ALARMS_MAX: usize = 1;

/// The file of that list, in bytes: its entries with the longest reasons.
pub const QUARANTINE_BYTES_MAX: u64 = 8 << 20;

/// Lines about denials that one connection may cause in the log in one turn.
pub const DENIAL_LINES_PER_TURN_MAX: usize = 4;

/// Operators' looks of one kind whose lines in the log are told once a minute; what goes beyond is told each time.
pub const OPERATOR_LOOKS_KEPT_MAX: usize = 1_024;

/// Lines of one kind that one service, or all clients without an identity together, may cause in the log at once.
pub const LOG_LINES_AT_ONCE: u32 = 100;

/// The same, in a second, for long: some 200 MB a day at the most. What is withheld is counted.
pub const LOG_LINES_PER_S: u32 = 10;

/// From the notice of a shutdown to its end, in milliseconds, unless the configuration says otherwise.
pub const LAME_DUCK_MS: u64 = 5_000;

/// From our last words to the closing of a socket, in milliseconds.
pub const LINGER_MS_MAX: u64 = 500;

/// Threads that carry connections.
pub const THREADS_MAX: usize = 256;

/// The configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;

/// Tracked messages that wait to be written down. Past it, publishers are told that the broker is overloaded.
pub const INTAKE_MESSAGES_MAX: usize = 65_536;

/// The same in bytes: one largest configurable payload fits.
pub const INTAKE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX_CONFIGURABLE + HEADER_BYTES_MAX;

/// A `Nats-Msg-Id`, in bytes: room for any UUID, digest or URL that somebody uses as one.
pub const MSG_ID_BYTES_MAX: usize = 255;

/// From the start of a service of `exocom demo` to its word that it is ready, in milliseconds.
pub const DEMO_START_MS_MAX: u64 = 20_000;

/// How long a service of `exocom demo` finishes the messages that have come, in milliseconds.
pub const DEMO_SHUTDOWN_MS_MAX: u64 = 3_000;

/// From the end of a demo service's input to its end, in milliseconds; past it, it is killed.
pub const DEMO_END_MS_MAX: u64 = 8_000;

/// A line of a demo service's log, in bytes; a longer one is passed on in parts.
pub const DEMO_LINE_BYTES_MAX: u64 = 8 << 10;

/// Messages in the store, dead letters included, unless the configuration says otherwise. Some 300 bytes of memory
/// each.
pub const STORE_MESSAGES_MAX: usize = 1_000_000;

/// Their bytes, unless the configuration says otherwise; the disk needs twice that and two segments.
pub const STORE_BYTES_MAX: usize = 1 << 30;

/// Messages that wait for one service, unless the configuration says otherwise: one that stays away must not fill
/// the store for all.
pub const QUEUE_MESSAGES_MAX: usize = 250_000;

/// Tracked messages in flight to one instance: more would only wait in its memory in place of the broker's.
pub const WINDOW_MESSAGES_MAX: usize = 1_024;

/// The same in bytes; well below what its outbox may hold.
pub const WINDOW_BYTES_MAX: usize = OUTBOX_BYTES_MAX / 2;

/// How long a `Nats-Msg-Id` is remembered, in milliseconds: the default of NATS JetStream.
pub const MSG_ID_WINDOW_MS: u64 = 120_000;

/// How many of them. Past it, publishers with ids are told that the broker is overloaded: to forget one early would
/// let a message through twice.
pub const MSG_IDS_MAX: usize = 1_000_000;

/// One segment of the message log, in bytes, unless the largest payload needs more.
pub const SEGMENT_BYTES: usize = 16 << 20;

/// Tracked messages kept in memory, in bytes, so that they need not be read from disk again.
pub const STORE_CACHE_BYTES_MAX: usize = 64 << 20;

/// A request of an operator, in bytes.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 64 << 10;

/// A policy that an operator applies, with what is said of it, in bytes. A larger one goes into its file on the broker's
/// machine.
pub const ADMIN_POLICY_BYTES_MAX: usize = 8 << 20;

/// Policies of the past that are kept, with their texts.
pub const POLICY_CHANGES_KEPT_MAX: usize = 200;

/// Flows that a candidate policy is told to judge otherwise, each by itself. Those past it are counted together.
pub const SHADOW_FLOWS_MAX: usize = 16_384;

/// The same for one service, which may make names up.
pub const SHADOW_FLOWS_PER_SERVICE_MAX: usize = 1024;

/// How long a policy may wait to be confirmed, in milliseconds: one day.
pub const POLICY_CONFIRM_MS_MAX: u64 = 86_400_000;

/// Connections of operators at once, through the admin socket and through the admin listener each.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Connections through the admin listener, at once, of those whose certificate is good and who are no operators: each
/// hears why it is refused, and no more than these at a time.
pub const ADMIN_STRANGERS_MAX: usize = 8;

/// From the end of one request of an operator to the head of the next, in milliseconds.
pub const ADMIN_HEAD_MS_MAX: u64 = 30_000;

/// How long somebody who is no operator may take to ask and be refused, in milliseconds.
pub const ADMIN_STRANGER_MS_MAX: u64 = 5_000;

/// How long a command waits for the broker's answer, in milliseconds.
pub const ADMIN_ANSWER_MS_MAX: u64 = 60_000;

/// A name or reason that an operator gives, in bytes: some lines.
pub const ADMIN_TEXT_BYTES_MAX: usize = 512;

/// A chapter of the audit log, in milliseconds: how long a flow keeps the number under which it is counted, and so
/// how far back a reader looks for its names.
pub const AUDIT_CHAPTER_MS: u64 = 3_600_000;

/// A file of checkpoints that a witness has kept, in bytes: one a second for two weeks.
pub const AUDIT_WITNESS_BYTES_MAX: usize = 256 << 20;

/// Records of the audit log that wait to be written, some 20 MiB. Past it, they are counted and lost.
pub const AUDIT_INTAKE_RECORDS_MAX: usize = 65_536;

/// Denials that are recorded apart in one round of the audit log, by sender, action, name and rule. Past it, names are
/// recorded as `>`.
pub const AUDIT_DENIAL_KEYS_MAX: usize = 10_000;

/// Of these, denials of one sender: one that makes up names must not make the others' indistinct.
pub const AUDIT_DENIAL_KEYS_PER_SENDER_MAX: usize = 64;

/// Different things that are denied to one connection in one turn and counted apart. Past it, they are counted under
/// the name `>`.
pub const AUDIT_DENIALS_PER_TURN_MAX: usize = 16;

/// How often the audit log is written where something has happened, in milliseconds: everything is on disk within a
/// second.
pub const AUDIT_ROUND_MS: u64 = 500;

/// From one flow record to the next, in milliseconds, unless the configuration says otherwise.
pub const AUDIT_INTERVAL_MS: u64 = 10_000;

/// Bytes of entries that wait for a commit of the audit log; past it, one is made at once. Each waits for the disk, so
/// few and large ones keep up with more.
pub const AUDIT_PENDING_BYTES_MAX: usize = 64 << 20;

/// Questions about checkpoints of the audit log that wait to be answered, one a connection: some 1 MiB.
pub const CHECKPOINT_QUESTIONS_MAX: usize = 8_192;

/// How often the audit log is looked through for what may be pruned, in milliseconds.
pub const AUDIT_PRUNE_EVERY_MS: u64 = 60_000;

/// The longest time between flow records that the configuration may set, in seconds.
pub const AUDIT_INTERVAL_S_MAX: u64 = 3_600;

/// The fewest bytes of entries that the configuration may let the audit log keep.
pub const AUDIT_KEEP_BYTES_MIN: u64 = 1 << 20;

/// A line of a recorded series, in bytes: a time, a value, and some columns that nobody asked for.
pub const SERIES_LINE_BYTES_MAX: usize = 4096;

/// Ticks that a recorded series may leave out between two rows: a year of ticks of 10 seconds. Each is made up for.
pub const BACKTEST_GAP_TICKS_MAX: u64 = 366 * 8_640;

/// Rows of a recorded series that may share its first time, where nothing says how long a tick is.
pub const BACKTEST_ROWS_ALIKE_MAX: usize = 10_000;

/// Records of single messages that wait to be written, some 80 MiB: a second and a half of 350,000 messages a second.
/// Past it, they are counted and lost; the counts of their flows are not.
pub const AUDIT_INTAKE_EACH_MAX: usize = 1 << 19;

/// Flows that are watched for alarms. What comes past it is counted and not watched.
pub const ALARM_FLOWS_MAX: usize = 100_000;

/// Their series, and those of senders and addresses: three for each flow, its messages, response times and sizes; some 300
/// MiB of detectors at the most.
pub const ALARM_STREAMS_MAX: usize = 300_000;

/// Addresses whose refused handshakes are watched apart, some 1 MiB of detectors; further ones are watched together.
pub const ALARM_ADDRESSES_MAX: usize = 1_000;

/// Addresses whose refused handshakes are counted apart within one tick.
pub const REFUSED_ADDRESSES_MAX: usize = 4_096;

/// Alarms that are kept to be looked at.
pub const ALARMS_KEPT_MAX: usize = 1_000;

/// The length of a tick of the detectors, in seconds.
pub const ALARM_TICK_S: u32 = 10;

/// How often what was learned is written to disk, in seconds.
pub const ALARM_SNAPSHOT_S: u64 = 300;

/// What was learned, on disk, in bytes.
pub const ALARM_SNAPSHOT_BYTES_MAX: u64 = 512 << 20;

/// How long an alarm's stream may be muted, in seconds: a month.
pub const ALARM_MUTE_S_MAX: u64 = 31 * 86_400;

/// A call of a server outside, from its name's look-up to its answer, in milliseconds. The broker's end waits as long.
pub const HTTPS_CALL_MS_MAX: u64 = 5_000;

/// Before a server outside that did not take something is tried again, in milliseconds: at first, then doubled up to this.
pub const OUTSIDE_BACKOFF_MS: u64 = 1_000;
/// See [`OUTSIDE_BACKOFF_MS`].
pub const OUTSIDE_BACKOFF_MS_MAX: u64 = 60_000;

/// What is still told at the broker's end to somebody outside, of what waits.
pub const OUTSIDE_LAST_MAX: usize = 16;

/// Events of alarms that wait for the webhook. Past it the oldest are given up, and counted.
pub const WEBHOOK_EVENTS_MAX: usize = 1_000;

/// Rates are told over at least so long, in microseconds: over less, single messages would look like a storm.
pub const RATES_US_MIN: u64 = 1_000_000;

/// Rows of each list of `exocom status`, unless somebody asks for more.
pub const STATUS_ROWS: usize = 1_000;

/// Rows of each list of `exocom status` that anybody may ask for, some 60 MiB of JSON each.
pub const STATUS_ROWS_MAX: usize = 100_000;

/// How long a status waits for the store's word on its queues, in milliseconds.
pub const STATUS_QUEUES_MS_MAX: u64 = 1_000;

/// Services of which metrics are told apart; past it, their counts are told together.
pub const METRICS_SERVICES_MAX: usize = 5_000;

/// Flows of which metrics are told apart, the largest first: each is a series for whoever keeps them.
pub const METRICS_FLOWS_MAX: usize = 1_000;

/// Connections to the port of metrics, at once.
pub const METRICS_CONNECTIONS_MAX: usize = 16;

/// How often `exocom top` may look, in milliseconds: nobody reads faster.
pub const TOP_INTERVAL_MS_MIN: u64 = 200;
