import ExoRelay = require('./index.js');

export default ExoRelay;
export { ExoRelay };
export import ExoError = ExoRelay.ExoError;
export type AnswerCallback<Answer = any> = ExoRelay.AnswerCallback<Answer>;
export type Events = ExoRelay.Events;
export type Handler<Payload = any> = ExoRelay.Handler<Payload>;
export type HandlerOptions = ExoRelay.HandlerOptions;
export type HandlerTools = ExoRelay.HandlerTools;
export type Options = ExoRelay.Options;
export type Outcome = ExoRelay.Outcome;
export type PublishOptions = ExoRelay.PublishOptions;
export type Reason = ExoRelay.Reason;
export type RequestOptions = ExoRelay.RequestOptions;
export type Stored = ExoRelay.Stored;
