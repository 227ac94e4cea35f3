import { EventEmitter } from 'node:events';

/** Sends and receives messages through ExoCom, as the service that its certificate names. */
declare class ExoRelay extends EventEmitter<ExoRelay.Events> {
  /**
   * Each option can come from the environment instead. Throws a `TypeError` that names what is missing or wrong.
   */
  constructor(options?: ExoRelay.Options);

  /** The service, as the certificate names it. */
  readonly serviceName: string;
  /** Whether messages can be sent now. */
  readonly isOnline: boolean;
  /** When the certificate expires, once the relay listens. A renewed one is used by itself. */
  readonly certificateExpires: Date | undefined;
  /** The port of the health endpoint, once it serves. */
  readonly healthPort: number | undefined;

  /**
   * Connects, and comes back whenever the connection is lost. With a port, serves `GET /` at 127.0.0.1: 200 while
   * online, 503 while not. Resolves when online for the first time; it need not be waited for.
   */
  listen(port?: number | string | null): Promise<void>;

  /** Sends a command; the callback gets the payload of the answer. What goes wrong comes as the event `error`. */
  send<Answer = any>(messageName: string, callback: ExoRelay.AnswerCallback<Answer>): void;
  send<Answer = any>(messageName: string, payload: unknown, callback: ExoRelay.AnswerCallback<Answer>): void;
  /** Sends an event, or a command whose answer nobody wants. What goes wrong comes as the event `error`. */
  send(messageName: string, payload?: unknown): void;

  /** Sends a command; resolves with the payload of the answer, rejects with an `ExoError`. */
  request<Answer = any>(messageName: string, payload?: unknown, options?: ExoRelay.RequestOptions): Promise<Answer>;

  /**
   * Publishes a tracked event, one whose policy says `delivery = "at-least-once"`. Resolves when ExoCom has it on disk;
   * rejects with an `ExoError` where it has not (`denied`, `overloaded`, `no-receiver`, `offline`, `not-tracked`), or
   * may not have (`connection-lost`, `timeout`).
   */
  publish(messageName: string, payload?: unknown, options?: ExoRelay.PublishOptions): Promise<ExoRelay.Stored>;

  /** Sends an event; resolves when ExoCom has taken it, rejects with an `ExoError` where it is denied or lost. */
  sendAndConfirm(messageName: string, payload?: unknown): Promise<void>;

  /** Resolves when ExoCom has taken all that was sent before. */
  flush(): Promise<void>;

  /** Handles the messages of a name or pattern, before or after `listen`. */
  registerHandler<Payload = any>(
    pattern: string,
    handler: ExoRelay.Handler<Payload>,
    options?: ExoRelay.HandlerOptions,
  ): this;

  /** Registers a handler for each name of an object. */
  registerHandlers(handlers: Record<string, ExoRelay.Handler>, options?: ExoRelay.HandlerOptions): this;

  /** Takes no more messages, lets handlers and requests finish for a bounded time, and disconnects for good. */
  close(): Promise<void>;
}

declare namespace ExoRelay {
  export interface Options {
    /** The service; `SERVICE_NAME`. The certificate must be for it, and says it where this is left out. */
    serviceName?: string | undefined;
    /** Where ExoCom listens; `EXOCOM_HOST`, or localhost. */
    exocomHost?: string | undefined;
    /** The port there; `EXOCOM_PORT`, or 4222. */
    exocomPort?: number | string | undefined;
    /** The file of ExoCom's root certificate, in PEM; `EXOCOM_CA`. */
    exocomCa?: string | undefined;
    /** The file of this service's certificate, in PEM; `EXOCOM_CERT`. */
    exocomCert?: string | undefined;
    /** The file of this service's private key, in PEM; `EXOCOM_KEY`. */
    exocomKey?: string | undefined;
    /**
     * Where the newest checkpoint of ExoCom's audit log is kept, so that it is noticed when the log is rewritten;
     * `EXOCOM_CHECKPOINT`. Not kept unless this is set, and with it `exocomLogKey`.
     */
    exocomCheckpoint?: string | undefined;
    /** The file of the log's public key, `log.pub`; `EXOCOM_LOG_KEY`. */
    exocomLogKey?: string | undefined;
    /** Messages of one handler that are worked on at the same time; 64. */
    concurrency?: number | undefined;
    /** The shortest pause between two attempts to connect; 50 ms. */
    reconnectMsMin?: number | undefined;
    /** The longest pause between two attempts to connect; 5 s. */
    reconnectMsMax?: number | undefined;
    /**
     * How long ExoCom is told that a tracked message is still being worked on, before it takes the attempt for failed
     * and makes another; an hour.
     */
    extendMsMax?: number | undefined;
    /** How long `close` waits for handlers and requests; 8 s. */
    closeMsMax?: number | undefined;
  }

  export interface RequestOptions {
    /** How long to wait at most. ExoCom itself ends every request within the policy's `reply-within`. */
    timeoutMs?: number | undefined;
  }

  export interface PublishOptions extends RequestOptions {
    /** An id of the sender's choice. What is published again with the same, within two minutes, is stored once. */
    id?: string | undefined;
  }

  export interface Stored {
    /** The name of the broker's store. */
    stream: string;
    /** The number under which it is kept there, which receivers see as `id`. */
    seq: number;
    /** It had been published before, with the same id; `seq` is that of the first time. */
    duplicate: boolean;
  }

  export interface HandlerOptions {
    /** Messages that are worked on at the same time; the relay's `concurrency`. */
    concurrency?: number | undefined;
  }

  export interface Events {
    /** Connected, and subscribed to what the handlers want: at first, and each time it comes back. */
    online: [];
    /** The connection has ended; the relay is trying to come back. */
    offline: [cause: Error | undefined];
    error: [error: ExoError];
  }

  export type AnswerCallback<Answer = any> = (payload: Answer, outcome: Outcome) => void;

  export interface Outcome {
    /** The service that answered, as ExoCom has verified it. */
    sender: string | undefined;
    messageName: string;
  }

  /**
   * Gets the payload (`undefined` for an empty one). Where it returns a promise, the promise's value is the
   * answer, unless it has called `reply` or `fail`; other values that it returns mean nothing. A tracked event is
   * acknowledged when it has returned, or its promise has resolved.
   */
  export type Handler<Payload = any> = (payload: Payload, tools: HandlerTools) => unknown;

  export interface HandlerTools {
    /** Answers; says whether that was the first answer, and one was wanted. */
    reply(payload?: unknown): boolean;
    /**
     * Answers with a failure, which the other side gets as an `ExoError` of reason `failed`. A tracked message with a
     * code from 500 is delivered again instead; a tracked event with one below, 400 if left out, becomes a dead letter.
     */
    fail(text: string, code?: number): boolean;
    /** It can never be handled: a tracked message becomes a dead letter at once, others fail with code 500. */
    never(why: string): boolean;
    /** As the relay's `send`, within the same trace. */
    send: ExoRelay['send'];
    /** As the relay's `request`, within the same trace. */
    request: ExoRelay['request'];
    /** As the relay's `publish`, within the same trace. */
    publish: ExoRelay['publish'];
    /** The service that sent the message, as ExoCom has verified it. */
    sender: string | undefined;
    messageName: string;
    /** The number under which ExoCom keeps a tracked message: the same in each attempt. */
    id: number | undefined;
    /** Which attempt to deliver the message this is. From 2 on, one before it may have done the work. */
    attempt: number;
  }

  /** Why something failed. The first seven are ExoCom's words; docs of each: README.md. */
  export type Reason =
    | 'denied'
    | 'no-receiver'
    | 'receiver-lost'
    | 'expired'
    | 'overloaded'
    | 'dead-letter'
    | 'quarantined'
    | 'failed'
    | 'timeout'
    | 'offline'
    | 'connection-lost'
    | 'closed'
    | 'not-tracked'
    | 'too-large'
    | 'bad-payload'
    | 'handler-failed'
    | 'late-reply'
    | 'unreachable'
    | 'health'
    | 'credentials'
    | 'certificate-expires'
    | 'history-rewritten'
    | 'history-unchecked'
    | (string & {});

  export class ExoError extends Error {
    readonly name: 'ExoError';
    readonly reason: Reason;
    /** The message that it is about. */
    readonly messageName: string | undefined;
    /** For a denied command: the line of the policy, or `no grant`. */
    readonly rule: string | undefined;
    /** For a refused command: the version of the policy that decided. */
    readonly policy: string | undefined;
    /** For `failed`: the receiver's code, in HTTP's meaning. */
    readonly code: number | undefined;
    /** For `failed`: what the receiver said. */
    readonly failure: string | undefined;
  }

  export { ExoRelay };
}

export = ExoRelay;
