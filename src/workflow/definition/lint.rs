//! What is wrong with a draft whose values can all be read by themselves. One function per question.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::catalog::{Arguments, Catalog, Place};
use super::codes;
use super::parse::{Draft, StepDraft, Value, default_reserve};
use super::read::{self, Mistake};
use super::types::{CountsAs, Mode, Overlap, Per, Retry};
use crate::workflow::action::ActionInfo;
use crate::workflow::duration;
use crate::workflow::id::Product;

/// The end of the reserve that no step gets: 2 s for children to end, 5 s for metrics and traces.
pub(super) const AFTER_FINALLY: Duration = Duration::from_secs(7);

/// Adds to the mistakes, returns the warnings.
pub(super) fn lint<'s>(draft: &Draft<'s>, catalog: &dyn Catalog, mistakes: &mut Vec<Mistake<'s>>) -> Vec<Mistake<'s>> {
    let mut warnings = Vec::new();
    missing(draft, mistakes);
    no_steps(draft, mistakes);
    duplicate_names(draft, mistakes);
    for (place, step) in all_steps(draft) {
        missing_in_step(step, mistakes);
        backoff(step, mistakes);
        if action(draft, place, step, catalog, mistakes) && place == Place::Finally {
            no_counter_in_finally(step, mistakes);
        }
    }
    needs(Place::Steps, draft.steps.get().map_or(&[], Vec::as_slice), catalog, mistakes);
    // What a machine made is gone when all machines have ended: `finally` begins with nothing.
    needs(Place::Finally, draft.finally.get().map_or(&[], Vec::as_slice), catalog, mistakes);
    if let Some(deadline) = draft.deadline.get().copied()
        && let Some(reserve) = draft.reserve.or(default_reserve(deadline))
    {
        reserve_leaves_time(draft, deadline, reserve, mistakes);
        finally_fits(draft, reserve, mistakes);
        let available = deadline.saturating_sub(reserve);
        for step in draft.steps.get().into_iter().flatten().filter(|_| !available.is_zero()) {
            retries_fit(step, available, mistakes);
        }
        wait_fits(draft, available, &mut warnings);
    }
    warnings
}

fn all_steps<'d, 's>(draft: &'d Draft<'s>) -> impl Iterator<Item = (Place, &'d StepDraft<'s>)> {
    let steps = draft.steps.get().into_iter().flatten().map(|step| (Place::Steps, step));
    steps.chain(draft.finally.get().into_iter().flatten().map(|step| (Place::Finally, step)))
}

/// How messages name a step.
fn called(step: &StepDraft<'_>) -> String {
    step.name.get().map_or_else(|| "this step".to_owned(), |name| format!("step \"{name}\""))
}

fn missing<'s>(draft: &Draft<'s>, mistakes: &mut Vec<Mistake<'s>>) {
    let fields = [
        ("name", draft.name.is_absent(), "name: \"token-push\""),
        ("for_each", draft.for_each.is_absent(), "for_each: Service"),
        ("deadline", draft.deadline.is_absent(), "deadline: \"5m\""),
        ("steps", draft.steps.is_absent(), "steps: [ Step(…), … ]"),
    ];
    for (field, absent, example) in fields {
        if absent {
            let mistake = Mistake::new(codes::MISSING_FIELD, draft.at, format!("the workflow has no `{field}`"));
            mistakes.push(mistake.with_help(format!("add {example}")));
        }
    }
}

fn missing_in_step<'s>(step: &StepDraft<'s>, mistakes: &mut Vec<Mistake<'s>>) {
    let fields = [
        ("name", step.name.is_absent(), "name: \"push\""),
        ("action", step.action.is_absent(), "action: Push"),
        ("timeout", step.timeout.is_absent(), "timeout: \"30s\""),
    ];
    for (field, absent, example) in fields {
        if absent {
            let mistake = Mistake::new(codes::MISSING_FIELD, step.at, format!("{} has no `{field}`", called(step)));
            mistakes.push(mistake.with_help(format!("add {example}")));
        }
    }
}

fn no_steps<'s>(draft: &Draft<'s>, mistakes: &mut Vec<Mistake<'s>>) {
    if let Some((steps, at)) = draft.steps.given()
        && steps.is_empty()
    {
        let mistake = Mistake::new(codes::NO_STEPS, read::first_token(at), "a workflow needs at least one step");
        mistakes.push(mistake.with_help("add Step(name: \"kinit\", action: Kinit, timeout: \"20s\")"));
    }
}

fn duplicate_names<'s>(draft: &Draft<'s>, mistakes: &mut Vec<Mistake<'s>>) {
    let mut seen = HashSet::new();
    for (_, step) in all_steps(draft) {
        if let Some((name, at)) = step.name.given()
            && !seen.insert(name)
        {
            let message = format!("two steps are named \"{name}\"");
            mistakes.push(
                Mistake::new(codes::DUPLICATE_NAME, read::first_token(at), message)
                    .with_help("a run is resumed by the names of its steps: give this one another"),
            );
        }
    }
}

fn backoff<'s>(step: &StepDraft<'s>, mistakes: &mut Vec<Mistake<'s>>) {
    let Some(retry) = step.retry.get() else { return };
    if let Some(((first, longest), at)) = retry.backoff.given()
        && first > longest
    {
        let message = format!(
            "the first pause, {}, is longer than the longest, {}",
            duration::format(*first),
            duration::format(*longest)
        );
        mistakes.push(
            Mistake::new(codes::BACKOFF, read::first_token(at), message)
                .with_help("backoff is (first pause, longest pause)"),
        );
    }
}

/// Is it an action that there is, and used as it may be? `false` if nothing more can be said about it.
fn action<'s>(
    draft: &Draft<'s>,
    place: Place,
    step: &StepDraft<'s>,
    catalog: &dyn Catalog,
    mistakes: &mut Vec<Mistake<'s>>,
) -> bool {
    let Some((action, at)) = step.action.given() else { return false };
    let token = read::first_token(at);
    let Some(shape) = catalog.action(action.name) else {
        let names = catalog.names();
        let message = format!("unknown action {}", read::shortened(action.name));
        let help = match read::nearest(action.name, names.iter().copied()) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("the actions are {}", names.join(", ")),
        };
        mistakes.push(Mistake::new(codes::UNKNOWN_ACTION, action.name, message).with_help(help));
        return false;
    };
    if shape.place != place {
        let message = format!("{} cannot stand in {place}, only in {}", action.name, shape.place);
        mistakes.push(Mistake::new(codes::WRONG_PLACE, token, message).with_help("move the step to the other list"));
        return false;
    }
    if let Some(for_each) = draft.for_each.get()
        && !shape.for_each.contains(for_each)
    {
        let message = format!("{} cannot work for each {for_each:?}", action.name);
        mistakes.push(Mistake::new(codes::WRONG_SUBJECT, token, message));
    }
    if let Some((per, at)) = step.per.given()
        && !shape.per.contains(per)
    {
        let names: Vec<_> = shape.per.iter().map(|per| format!("{per:?}")).collect();
        let may = read::enumerate(names.iter().map(String::as_str));
        let message = format!("{} cannot work per {per:?}: expected {may}", action.name);
        let help = "leave `per` out: the action knows";
        mistakes.push(Mistake::new(codes::WRONG_PER, read::first_token(at), message).with_help(help));
    }
    match (shape.arguments, action.arguments) {
        (Arguments::None(_), None) => {}
        (Arguments::None(_), Some(arguments)) => {
            let message = format!("{} takes no arguments", action.name);
            mistakes.push(
                Mistake::new(codes::ARGUMENTS, read::first_token(arguments), message)
                    .with_help(format!("write action: {}", action.name)),
            );
        }
        (Arguments::Some(_, example), None) => {
            let message = format!("{} needs arguments", action.name);
            mistakes.push(Mistake::new(codes::ARGUMENTS, token, message).with_help(format!("write action: {example}")));
        }
        (Arguments::Some(check, _), Some(arguments)) => mistakes.extend(check(arguments).err().into_iter().flatten()),
    }
    if let (Some((CountsAs::Push, at)), Some(Per::Subject)) = (step.counts_as.given(), step.per.or(shape.per[0])) {
        let message = format!("counts_as: Push counts for each target, and {} has none", called(step));
        let help = "count it as Setup, or let it work per Node";
        mistakes.push(Mistake::new(codes::COUNTER, read::first_token(at), message).with_help(help));
    }
    true
}

fn no_counter_in_finally<'s>(step: &StepDraft<'s>, mistakes: &mut Vec<Mistake<'s>>) {
    match step.counts_as.given() {
        None | Some((CountsAs::Nothing, _)) => {}
        Some((CountsAs::Setup | CountsAs::Push, at)) => {
            let message = format!("{} works for the whole run and cannot feed a counter", called(step));
            mistakes
                .push(Mistake::new(codes::COUNTER, read::first_token(at), message).with_help("leave `counts_as` out"));
        }
    }
}

/// What an action needs and provides; `None` if that cannot be known.
fn info(step: &StepDraft<'_>, catalog: &dyn Catalog) -> Option<ActionInfo> {
    let action = step.action.get()?;
    match (catalog.action(action.name)?.arguments, action.arguments) {
        (Arguments::None(info), _) => Some(info()),
        (Arguments::Some(check, _), Some(arguments)) => check(arguments).ok(),
        (Arguments::Some(..), None) => None,
    }
}

/// In every mode, everything a step needs must be given or provided by a step before it. A product is asked for once:
/// whatever provides it to the first step that lacks it serves the later ones too.
fn needs<'s>(place: Place, steps: &[StepDraft<'s>], catalog: &dyn Catalog, mistakes: &mut Vec<Mistake<'s>>) {
    let steps: Vec<_> = steps.iter().map(|step| (step, info(step, catalog))).collect();
    let mut lacking: BTreeMap<(usize, Product), Vec<Mode>> = BTreeMap::new();
    for mode in Mode::ALL {
        let mut there: HashSet<Product> = catalog.given().into_iter().collect();
        for (number, (step, info)) in steps.iter().enumerate().filter(|(_, (step, _))| step.runs_in(*mode)) {
            // A step that cannot be read might provide anything, or not run at all: nothing after it is blamed.
            let Some(info) = info else { break };
            for product in &info.needs {
                if there.insert(product.clone()) {
                    lacking.entry((number, product.clone())).or_default().push(*mode);
                }
            }
            there.extend(info.provides.iter().map(|provision| provision.product.clone()));
            if matches!(step.when, Value::Bad) {
                break;
            }
        }
    }
    for ((number, product), modes) in lacking {
        let step = steps[number].0;
        let in_modes = match Mode::ALL.iter().filter(|mode| step.runs_in(**mode)).count() == modes.len() {
            true => String::new(),
            false => {
                let names: Vec<_> = modes.iter().map(|mode| format!("{mode:?}")).collect();
                format!(" in mode {}", names.join(" and "))
            }
        };
        let message = format!("{} needs {product}, and no step before it provides it{in_modes}", called(step));
        let at = step.action.given().map_or(step.at, |(_, at)| read::first_token(at));
        let providers: Vec<_> =
            catalog.names().into_iter().filter(|name| provides(catalog, place, name, &product)).collect();
        let help = match (providers.is_empty(), in_modes.is_empty()) {
            (false, true) => format!("put a {} step before it", read::enumerate(providers)),
            (false, false) => {
                format!("put a {} step before it that also runs then: look at `when`", read::enumerate(providers))
            }
            (true, _) => {
                let known = products(catalog);
                match read::nearest(product.as_str(), known.iter().map(Product::as_str)) {
                    Some(name) => format!("did you mean {name}?"),
                    None => format!("a step that provides {product} must stand before it"),
                }
            }
        };
        mistakes.push(Mistake::new(codes::NEEDS, at, message).with_help(help));
    }
}

/// All that the actions provide by themselves.
fn products(catalog: &dyn Catalog) -> Vec<Product> {
    let mut products = catalog.given();
    for shape in catalog.names().into_iter().filter_map(|name| catalog.action(name)) {
        match shape.arguments {
            Arguments::None(info) => products.extend(info().provides.into_iter().map(|provision| provision.product)),
            Arguments::Some(..) => {}
        }
    }
    products
}

/// Would a step with this action, in this list, provide the product?
fn provides(catalog: &dyn Catalog, place: Place, name: &str, product: &Product) -> bool {
    let shape = catalog.action(name).filter(|shape| shape.place == place);
    match shape.map(|shape| shape.arguments) {
        Some(Arguments::None(info)) => info().provides.iter().any(|provision| provision.product == *product),
        Some(Arguments::Some(..)) | None => false,
    }
}

fn reserve_leaves_time<'s>(draft: &Draft<'s>, deadline: Duration, reserve: Duration, mistakes: &mut Vec<Mistake<'s>>) {
    if let (true, Some((_, at))) = (reserve >= deadline, draft.reserve.given()) {
        let message = format!(
            "the reserve, {}, leaves nothing of the deadline, {}, for the steps",
            duration::format(reserve),
            duration::format(deadline)
        );
        let help = format!("leave it out for {}", duration::format(default_reserve(deadline)));
        mistakes.push(Mistake::new(codes::RESERVE, read::first_token(at), message).with_help(help));
    }
}

fn finally_fits<'s>(draft: &Draft<'s>, reserve: Duration, mistakes: &mut Vec<Mistake<'s>>) {
    // A value that cannot be read is told already, and its step may be any length.
    let mut steps = Vec::new();
    for step in draft.finally.get().into_iter().flatten() {
        match (step.timeout.get(), step.retries()) {
            (Some(timeout), Some(retry)) => steps.push((step, *timeout, retry)),
            (None, _) | (_, None) => return,
        }
    }
    if matches!(draft.finally, Value::Bad) {
        return;
    }
    let needed = finally_takes(|mode| {
        steps.iter().filter(|(step, ..)| step.runs_in(mode)).map(|(_, timeout, retry)| (*timeout, *retry)).collect()
    });
    let Some(message) = finally_too_long(needed, reserve) else { return };
    let at = match (draft.reserve.given(), draft.finally.given(), draft.deadline.given()) {
        (Some((_, at)), _, _) | (None, Some((_, at)), _) | (None, None, Some((_, at))) => read::first_token(at),
        (None, None, None) => draft.at,
    };
    let help = format!("say reserve: \"{}\" or more, or lower the timeouts in `finally`", duration::format(needed));
    mistakes.push(Mistake::new(codes::FINALLY_DOES_NOT_FIT, at, message).with_help(help));
}

fn retries_fit<'s>(step: &StepDraft<'s>, available: Duration, mistakes: &mut Vec<Mistake<'s>>) {
    let (Some((timeout, at)), Some(retry)) = (step.timeout.given(), step.retries()) else { return };
    if let Some(takes) = too_long(*timeout, retry, available) {
        let message = format!(
            "{} can take {takes}, more than the {} that the deadline leaves for it",
            called(step),
            duration::format(available)
        );
        mistakes.push(
            Mistake::new(codes::RETRIES_DO_NOT_FIT, read::first_token(at), message)
                .with_help("lower timeout, times or backoff, or raise the deadline"),
        );
    }
}

fn wait_fits<'s>(draft: &Draft<'s>, available: Duration, warnings: &mut Vec<Mistake<'s>>) {
    match draft.overlap.given() {
        Some((Overlap::Wait(wait), at)) if *wait >= available => {
            let message = format!(
                "waiting {} for another run uses up the {} that the deadline leaves",
                duration::format(*wait),
                duration::format(available)
            );
            warnings.push(
                Mistake::new(codes::WAIT_DOES_NOT_FIT, read::first_token(at), message)
                    .with_help("wait less, or raise the deadline"),
            );
        }
        Some((Overlap::Wait(_) | Overlap::Skip, _)) | None => {}
    }
}

/// All the pauses between the tries of a step, as long as they can get.
fn pauses(retry: Retry) -> Duration {
    let (first, longest) = retry.backoff;
    let (mut pause, mut total) = (first.min(longest), Duration::ZERO);
    for done in 0..retry.times {
        if pause == longest || pause.is_zero() {
            return total.saturating_add(pause.saturating_mul(retry.times - done));
        }
        total = total.saturating_add(pause);
        pause = pause.saturating_mul(2).min(longest);
    }
    total
}

fn worst_case(timeout: Duration, retry: Retry) -> Duration {
    timeout.saturating_mul(retry.times.saturating_add(1)).saturating_add(pauses(retry))
}

/// How long all tries can take, in words, if that is more than there is.
pub(super) fn too_long(timeout: Duration, retry: Retry, available: Duration) -> Option<String> {
    let worst = worst_case(timeout, retry);
    let all = duration::format(worst);
    let each = duration::format(timeout);
    (worst > available).then(|| match (retry.times, pauses(retry)) {
        (0, _) => all,
        (times, Duration::ZERO) => format!("{} x {each} = {all}", times + 1),
        (times, _) if retry.backoff.0 == retry.backoff.1 => {
            format!("{} x {each} + {times} x {} = {all}", times + 1, duration::format(retry.backoff.0))
        }
        (times, pauses) => format!("{} x {each} + pauses of {} = {all}", times + 1, duration::format(pauses)),
    })
}

/// What the `finally` steps need of the reserve: the longest of the modes. The steps of a mode as (timeout, retry).
pub(super) fn finally_takes(steps: impl Fn(Mode) -> Vec<(Duration, Retry)>) -> Duration {
    let longest = Mode::ALL.iter().map(|mode| {
        steps(*mode)
            .into_iter()
            .map(|(timeout, retry)| worst_case(timeout, retry))
            .fold(Duration::ZERO, Duration::saturating_add)
    });
    longest.max().unwrap_or_default().saturating_add(AFTER_FINALLY)
}

/// The complaint, if they need more than there is.
pub(super) fn finally_too_long(needed: Duration, reserve: Duration) -> Option<String> {
    (needed > reserve).then(|| {
        format!(
            "the `finally` steps can take {}, {} for ending children and sending metrics included: more than the reserve, {}",
            duration::format(needed),
            duration::format(AFTER_FINALLY),
            duration::format(reserve)
        )
    })
}
