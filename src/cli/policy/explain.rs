//! `exocom policy explain`: why a message may pass or may not, and what would change that.
//!
//! Only shows: the answer is the policy's, and what surrounds it is `review`'s.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{REFUSED, Streams, load, unusable};
use crate::cli::answer::print_json;
use crate::cli::serve::read_config;
use crate::policy::{Action, Delivery, Kind, Policy, Service, Terms};
use crate::review::{Edit, EditVerb, Explanation, Reach, explain};
use crate::wire::name::Pattern;

/// Explain why a service may or may not send or receive a message
#[derive(Debug, Args)]
#[command(
    long_about = "Explain why a service may or may not send or receive a message.\n\n\
        Answers yes or no as the broker would, and tells the line that grants or forbids it, what is nearly what you \
        asked for, and the smallest edit that would turn the answer. Of a pattern, the answer is yes if the service may \
        do so with every name that it matches.\n\n\
        Nothing is changed, and no running broker is asked.",
    after_long_help = "Examples:\n  \
        exocom policy explain --from web --send todos.purge --on policies/todo.toml\n  \
        exocom policy explain --from todos --receive 'todos.*' --on policies/\n  \
        exocom policy explain --from web --send todos.list        on the policy of ./exocom.toml\n\n\
        Exit codes:\n  \
        0  yes, it may\n  \
        1  no, it may not\n  \
        2  the policy is missing, unreadable or has mistakes, or the command line is wrong"
)]
pub struct ExplainArgs {
    /// The service that sends or receives
    #[arg(long, value_name = "SERVICE", visible_alias = "service")]
    from: String,
    #[command(flatten)]
    what: What,
    /// The policy: a file, or a folder of *.toml files; may be given several times [default: that of the configuration]
    #[arg(long, value_name = "PATH")]
    on: Vec<PathBuf>,
    /// The configuration file that names the policy
    #[arg(long, value_name = "FILE", default_value = "exocom.toml")]
    config: PathBuf,
    /// Print the result as JSON, on standard output, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A message name, or a pattern, that it sends
    #[arg(long, value_name = "NAME", value_parser = pattern)]
    send: Option<Pattern>,
    /// A message name, or a pattern, that it receives
    #[arg(long, value_name = "NAME", value_parser = pattern)]
    receive: Option<Pattern>,
}

fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::new(text).map_err(|error| error.to_string())
}

/// Does it.
pub(super) fn run(args: &ExplainArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let paths = match policy_paths(&args.on, &args.config) {
        Ok(paths) => paths,
        Err(error) => return unusable(&error, args.json, streams),
    };
    let policy = match load(&paths) {
        Ok(policy) => policy,
        Err(none) => return none.tell(args.json, streams),
    };
    let (action, asked) = match (&args.what.send, &args.what.receive) {
        (Some(send), _) => (Action::Send, send),
        (None, Some(receive)) => (Action::Receive, receive),
        (None, None) => return unusable(&"give --send NAME or --receive NAME", args.json, streams),
    };
    let explanation = match explain(&policy, &args.from, action, asked) {
        Ok(explanation) => explanation,
        Err(error) => return unusable(&error, args.json, streams),
    };
    if args.json {
        print_json(streams.out, &Outcome::of(&explanation, &policy))?;
    } else {
        streams.out.write_all(text(&explanation, &policy).as_bytes())?;
    }
    Ok(if explanation.allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}

/// The policy that was named, or that of the configuration.
fn policy_paths(on: &[PathBuf], config: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if on.is_empty() {
        anyhow::ensure!(
            config.exists(),
            "which policy? Name it with --on, or the broker's configuration with --config; there is no {}",
            config.display()
        );
        Ok(vec![read_config(config)?.policy])
    } else {
        Ok(on.to_vec())
    }
}

/// What `--json` prints.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome<'a> {
    #[serde(flatten)]
    explanation: &'a Explanation,
    others: Vec<&'a str>,
    terms: Option<Vec<(&'static str, Option<String>)>>,
    policy_version: &'a str,
}

impl<'a> Outcome<'a> {
    fn of(explanation: &'a Explanation, policy: &'a Policy) -> Self {
        Self {
            others: others(explanation, policy)
                .iter()
                .map(|other| &**other.name())
                .collect(),
            terms: terms(explanation, policy).map(|terms| terms.written().collect()),
            policy_version: policy.version(),
            explanation,
        }
    }
}

/// Who is on the other end of something that is allowed.
fn others<'p>(explanation: &Explanation, policy: &'p Policy) -> Vec<&'p Service> {
    let other = match explanation.action {
        Action::Send => Action::Receive,
        Action::Receive => Action::Send,
    };
    let does = |service: &&Service| {
        let reach = Reach::of(Some(*service), other);
        reach
            .within(&explanation.asked)
            .is_ok_and(|parts| !parts.is_empty())
    };
    if explanation.allowed {
        policy.services().filter(does).collect()
    } else {
        Vec::new()
    }
}

/// How the message travels, where it may.
fn terms(explanation: &Explanation, policy: &Policy) -> Option<Terms> {
    let name = explanation.name.as_ref().filter(|_| explanation.allowed)?;
    Some(policy.terms(name))
}

fn text(explanation: &Explanation, policy: &Policy) -> String {
    let Explanation {
        allowed,
        service,
        action,
        asked,
        name,
        reason,
        rule,
        near,
        edits,
        beside,
    } = explanation;
    let rule = rule.as_ref().map_or(String::new(), |rule| format!(" ({rule})"));
    let mut lines = Vec::new();
    if *allowed {
        lines.push(format!("yes: {service} may {action} {asked}{rule}"));
        lines.push(on_the_other_end(*action, &others(explanation, policy)));
        if let Some(terms) = terms(explanation, policy) {
            lines.push(format!("  it travels as {}", travels(&terms)));
        }
    } else {
        let which = match name {
            Some(name) if name.as_str() != asked.as_str() => format!(", such as {name}"),
            _ => String::new(),
        };
        let reason = reason.map_or(String::new(), |reason| reason.to_string());
        lines.push(format!(
            "no: {service} may not {action} {asked}{which}: {reason}{rule}"
        ));
    }
    for near in near {
        let rule = near
            .rule
            .as_ref()
            .map_or(String::new(), |rule| format!(" ({rule})"));
        lines.push(format!("  near: {}{rule}", near.text));
    }
    let turn = if *allowed { "forbid" } else { "allow" };
    for edit in edits {
        lines.push(format!("  to {turn} it: {}", told(edit, service, policy)));
    }
    for beside in beside {
        lines.push(format!(
            "  which would also {turn} {}, such as {}",
            beside.pattern, beside.example
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn on_the_other_end(action: Action, others: &[&Service]) -> String {
    let verb = match action {
        Action::Send => "receives",
        Action::Receive => "sends",
    };
    let names: Vec<_> = others
        .iter()
        .map(|other| match other.zone() {
            Some(zone) => format!("{} in zone {zone}", other.name()),
            None => other.name().to_string(),
        })
        .collect();
    if names.is_empty() {
        format!("  nobody {verb} it")
    } else {
        format!("  who {verb} it: {}", names.join(", "))
    }
}

/// Only what there is to say of such a message.
fn travels(terms: &Terms) -> String {
    let is_command = terms.kind == Kind::Command;
    let is_tracked = terms.delivery == Delivery::AtLeastOnce;
    let told = terms.written().filter_map(|(key, value)| {
        let value = value?;
        match key {
            "kind" | "delivery" => Some(value),
            "reply-within" if !is_command => None,
            "ack-within" if is_command || !is_tracked => None,
            "attempts" | "backoff" | "expires" if !is_tracked => None,
            "audit" => None,
            _ => Some(format!("{key} {value}")),
        }
    });
    told.collect::<Vec<_>>().join(", ")
}

/// An edit in words.
pub(super) fn told(edit: &Edit, service: &str, policy: &Policy) -> String {
    let Edit {
        verb,
        pattern,
        key,
        rule,
    } = edit;
    match (verb, rule) {
        (EditVerb::Add, Some(rule)) => format!("add \"{pattern}\" to {key} of [service.{service}] ({rule})"),
        (EditVerb::Add, None) => {
            let place = policy.services().next().map_or_else(
                || policy.trust_domain_rule().file.to_string(),
                |listed| listed.rule().file.to_string(),
            );
            format!("add [service.{service}] {key} = [\"{pattern}\"] to {place}")
        }
        (EditVerb::Remove, Some(rule)) => format!("remove \"{pattern}\" from {key} ({rule})"),
        (EditVerb::Remove, None) => format!("remove \"{pattern}\" from {key}"),
    }
}
