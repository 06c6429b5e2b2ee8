//! Conditions: CEL behind a type of our own, so that nothing else depends on the interpreter.
//!
//! A condition is written by the operator; the values it meets are written by whoever causes events. So all that can be
//! wrong with the text is found when it is compiled, and what a value can do is bounded: strings, lists and depth are cut
//! in [`Facts`], comprehensions nest at most twice, and regular expressions (which run in linear time) come only from the
//! condition itself, never from an event.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::{Context, Env, ExecutionError, Program};
use serde_json::Value;
use thiserror::Error;

use super::CompileError;
use super::facts::{EVENT, Fact, FactSet, Facts, STEPS, cut};
use super::shape::{Place, Shape};

/// The longest condition, in bytes.
pub const MAX_CONDITION: usize = 4 * 1024;

/// How deep comprehensions (`exists`, `all`, `map`, `filter`) may nest.
pub const MAX_NESTING: usize = 2;

/// The longest regular expression, in bytes.
const MAX_REGEX: usize = 256;

/// How deep the expression itself may be; evaluation recurses this far.
const MAX_EXPRESSION_DEPTH: usize = 64;

/// The functions a condition may call, besides operators. Each is linear in its input.
const FUNCTIONS: [&str; 10] =
    ["size", "contains", "startsWith", "endsWith", "matches", "string", "int", "uint", "double", "type"];

/// The names of types, for `type(x) == string`.
const TYPES: [&str; 8] = ["bool", "int", "uint", "double", "string", "list", "map", "null_type"];

/// A compiled condition.
pub struct Condition {
    text: String,
    program: Program,
    names: BTreeSet<&'static str>,
    steps: BTreeSet<String>,
    /// The fields of the event that it reads; `None` when it reads the event as a whole.
    event_fields: Option<BTreeSet<String>>,
}

/// A condition that gave no answer for these facts.
#[derive(Debug, Error)]
pub enum ConditionError {
    /// It needs a fact that could not be had.
    #[error("the fact `{fact}` is not known: {why}")]
    MissingFact {
        /// The fact.
        fact: Fact,
        /// Why it is not known.
        why: String,
    },
    /// It reads a field that this event doesn't have.
    #[error("there is no field `{field}` here; ask for it first with has(…)")]
    NoSuchField {
        /// The field.
        field: String,
    },
    /// It answered with something other than true or false.
    #[error("the answer is a {got}, not true or false; compare it with something")]
    NotBool {
        /// The type of the answer.
        got: String,
    },
    /// Anything else, such as comparing a text with a number.
    #[error("it cannot be evaluated: {detail}")]
    Failed {
        /// What the interpreter says, cut.
        detail: String,
    },
}

impl Condition {
    /// Compiles a condition; whatever can be wrong without an event is found here.
    pub fn compile(text: &str) -> Result<Self, CompileError> {
        if text.len() > MAX_CONDITION {
            let message = format!("the condition has {} bytes, more than {MAX_CONDITION}", text.len());
            return Err(CompileError::new(message, "split the step or the playbook"));
        }
        let program = ENV.compile(text).map_err(|errors| {
            let first = errors.errors.first().map_or("not understood", |error| error.msg.as_str());
            let message = format!("`{}` is not a CEL expression: {}", cut(text, 200), cut(first, 300));
            CompileError::new(message, "write something like risk.level == \"HIGH\"")
        })?;
        let mut walk = Walk::default();
        walk.visit(program.expression(), 0, 0)?;
        let Walk { names, steps, event_fields, whole_event, .. } = walk;
        check_answers(program.expression(), &sample(&names, &steps))?;
        let event_fields = Some(event_fields).filter(|_| !whole_event);
        Ok(Self { text: text.to_owned(), program, names, steps, event_fields })
    }

    /// The condition as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The facts it names.
    pub fn facts_named(&self) -> FactSet {
        self.names.iter().filter_map(|name| Fact::parse(name)).collect()
    }

    /// Whether it reads what other steps did.
    pub fn names_steps(&self) -> bool {
        self.names.contains(STEPS)
    }

    /// Which steps it reads, as identifiers (see [`step_identifier`](super::facts::step_identifier)).
    pub fn steps_named(&self) -> &BTreeSet<String> {
        &self.steps
    }

    /// Answers the condition. Only what it names is handed to the interpreter: of the event, which is large and mostly
    /// not asked about, only the fields that it reads.
    pub fn evaluate(&self, facts: &Facts) -> Result<bool, ConditionError> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        for name in &self.names {
            let value = match &self.event_fields {
                Some(fields) if *name == EVENT => facts.event_part(fields),
                _ => facts.value(name),
            };
            if let Some(value) = value {
                context.add_variable_from_value(*name, to_cel(value));
            }
        }
        match self.program.execute(&context) {
            Ok(cel::Value::Bool(answer)) => Ok(answer),
            Ok(other) => Err(ConditionError::NotBool { got: other.type_of().to_string() }),
            Err(error) => Err(explain(error, facts)),
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

fn explain(error: ExecutionError, facts: &Facts) -> ConditionError {
    match error {
        ExecutionError::UndeclaredReference(name) => match Fact::parse(&name) {
            Some(fact) => {
                let why = facts.reason_missing(fact).unwrap_or("it has not been asked for").to_owned();
                ConditionError::MissingFact { fact, why }
            }
            None => ConditionError::Failed { detail: format!("`{}` is not known", cut(&name, 100)) },
        },
        ExecutionError::NoSuchKey(field) => ConditionError::NoSuchField { field: cut(&field, 100).to_owned() },
        other => {
            let detail = other.to_string().chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
            ConditionError::Failed { detail }
        }
    }
}

fn to_cel(value: Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => flag.into(),
        Value::String(text) => text.into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), _, _) => cel::Value::Int(int),
            (None, Some(uint), _) => cel::Value::UInt(uint),
            (None, None, float) => cel::Value::Float(float.unwrap_or(f64::NAN)),
        },
        Value::Array(list) => list.into_iter().map(to_cel).collect::<Vec<_>>().into(),
        Value::Object(object) => {
            object.into_iter().map(|(key, item)| (key, to_cel(item))).collect::<HashMap<_, _>>().into()
        }
    }
}

/// Looks at every part of an expression once, before it is ever evaluated.
#[derive(Default)]
struct Walk<'e> {
    names: BTreeSet<&'static str>,
    steps: BTreeSet<String>,
    event_fields: BTreeSet<String>,
    whole_event: bool,
    /// The variables of the comprehensions around the current part.
    bound: Vec<&'e str>,
}

impl<'e> Walk<'e> {
    /// Gives what is known about the value of the part, if it is a name or a field of one.
    fn visit(&mut self, part: &'e IdedExpr, depth: usize, nesting: usize) -> Result<Option<Place>, CompileError> {
        if depth > MAX_EXPRESSION_DEPTH {
            let message = format!("the expression is more than {MAX_EXPRESSION_DEPTH} levels deep");
            return Err(CompileError::new(message, "use `in [ … ]` instead of long chains, or split the step"));
        }
        let depth = depth + 1;
        match &part.expr {
            Expr::Literal(_) | Expr::Unspecified => {}
            Expr::Ident(name) => return self.name(name),
            Expr::Select(select) => {
                let place = match &select.operand.expr {
                    Expr::Ident(name) if self.is_free(name, STEPS) => {
                        self.names.insert(STEPS);
                        self.steps.insert(select.field.clone());
                        Place::of(STEPS)
                    }
                    Expr::Ident(name) if self.is_free(name, EVENT) => {
                        self.names.insert(EVENT);
                        self.event_fields.insert(select.field.clone());
                        Place::of(EVENT)
                    }
                    _ => self.visit(&select.operand, depth, nesting)?,
                };
                return place.map(|place| place.field(&select.field)).transpose();
            }
            Expr::Call(call) => {
                check_function(&call.func_name)?;
                if call.func_name == "matches" {
                    check_regex(call.args.last(), nesting)?;
                }
                if let Some(target) = &call.target {
                    self.visit(target, depth, nesting)?;
                }
                let args: Vec<_> =
                    call.args.iter().map(|arg| self.visit(arg, depth, nesting)).collect::<Result<_, _>>()?;
                return operation(call, &args);
            }
            Expr::Comprehension(comprehension) => {
                self.visit(&comprehension.iter_range, depth, nesting)?;
                self.visit(&comprehension.accu_init, depth, nesting)?;
                let nesting = nesting + 1;
                if nesting > MAX_NESTING {
                    let message = format!("comprehensions are nested more than {MAX_NESTING} deep");
                    return Err(CompileError::new(message, "look at fewer lists inside lists"));
                }
                let outside = self.bound.len();
                self.bound.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
                self.bound.extend(comprehension.iter_var2.as_deref());
                for part in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
                    self.visit(part, depth, nesting)?;
                }
                self.bound.truncate(outside);
            }
            Expr::List(list) => {
                for item in &list.elements {
                    self.visit(item, depth, nesting)?;
                }
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            self.visit(&entry.key, depth, nesting)?;
                            self.visit(&entry.value, depth, nesting)?;
                        }
                        EntryExpr::StructField(field) => {
                            self.visit(&field.value, depth, nesting)?;
                        }
                    }
                }
            }
            Expr::Struct(made) => {
                let message = format!("there is no type `{}` to build", cut(&made.type_name, 100));
                return Err(CompileError::new(message, "use a map: {\"key\": value}"));
            }
        }
        Ok(None)
    }

    fn name(&mut self, name: &str) -> Result<Option<Place>, CompileError> {
        if self.bound.contains(&name) || TYPES.contains(&name) {
            return Ok(None);
        }
        if name == STEPS {
            let remedy = "write steps.NAME with `_` for every `-` of the name, such as steps.tell_security.state";
            return Err(CompileError::new("`steps` is used as a whole", remedy));
        }
        match Facts::names().find(|known| *known == name) {
            Some(known) => {
                self.names.insert(known);
                self.whole_event |= known == EVENT;
                Ok(Place::of(known))
            }
            None => Err(CompileError::unknown_name(name)),
        }
    }

    /// Whether this is that name of the facts, and not the variable of a comprehension.
    fn is_free(&self, name: &str, known: &str) -> bool {
        name == known && !self.bound.contains(&name)
    }
}

/// Looks at an operation on what is known: `risk["level"]` is a field, and a level compared with a literal has to be able to
/// be equal to it.
fn operation(call: &CallExpr, known: &[Option<Place>]) -> Result<Option<Place>, CompileError> {
    let ([left, right], [left_known, right_known]) = (call.args.as_slice(), known) else {
        return Ok(None);
    };
    match (call.func_name.as_str(), left_known, right_known, &right.expr) {
        (operators::INDEX, Some(place), _, Expr::Literal(LiteralValue::String(field))) => {
            return place.field(field.inner()).map(Some);
        }
        (operators::EQUALS | operators::NOT_EQUALS, Some(place), _, _) => check_literal(place, right)?,
        (operators::EQUALS | operators::NOT_EQUALS, _, Some(place), _) => check_literal(place, left)?,
        (operators::IN, Some(place), _, Expr::List(list)) => {
            list.elements.iter().try_for_each(|item| check_literal(place, item))?;
        }
        _ => {}
    }
    Ok(None)
}

fn check_literal(place: &Place, part: &IdedExpr) -> Result<(), CompileError> {
    match &part.expr {
        Expr::Literal(LiteralValue::String(text)) => place.check_literal(Some(text.inner())),
        Expr::Literal(_) => place.check_literal(None),
        _ => Ok(()),
    }
}

/// Facts with every field filled whose form is known, for a condition that reads these names and steps.
fn sample(names: &BTreeSet<&'static str>, steps: &BTreeSet<String>) -> Context<'static, 'static> {
    let mut context = Context::with_env(Arc::clone(&ENV));
    for name in names {
        let value = match Facts::shape(name) {
            Some(Shape::Each(fields)) => {
                Some(steps.iter().filter_map(|step| Some((step.clone(), Shape::Record(fields).sample()?))).collect())
            }
            shape => shape.and_then(Shape::sample),
        };
        if let Some(value) = value {
            context.add_variable_from_value(*name, to_cel(value));
        }
    }
    context
}

/// Answers every operand of `&&`, `||`, `!` and every branch of `? :` by itself, so that one that is skipped for the sample is
/// seen too, and refuses what answers with something other than true or false. What can't be answered without an event is
/// left to the event. Recurses no deeper than the walk before it.
fn check_answers(part: &IdedExpr, sample: &Context) -> Result<(), CompileError> {
    if let Expr::Call(call) = &part.expr
        && [operators::LOGICAL_AND, operators::LOGICAL_OR, operators::LOGICAL_NOT, operators::CONDITIONAL]
            .contains(&call.func_name.as_str())
    {
        return call.args.iter().try_for_each(|arg| check_answers(arg, sample));
    }
    match cel::Value::resolve(part, sample) {
        Ok(cel::Value::Bool(_)) | Err(_) => Ok(()),
        Ok(other) => {
            let what =
                field_path(part).map_or_else(|| "a part of the condition".to_owned(), |path| format!("`{path}`"));
            let message = format!("{what} is of type {}, not true or false", other.type_of());
            Err(CompileError::new(message, "compare it with something, such as risk.level == \"HIGH\""))
        }
    }
}

/// The part as it was written, if it is a name or a field of one.
fn field_path(part: &IdedExpr) -> Option<String> {
    match &part.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) => Some(format!("{}.{}", field_path(&select.operand)?, select.field)),
        _ => None,
    }
}

fn check_function(name: &str) -> Result<(), CompileError> {
    // The interpreter names operators `_+_`, `!_`, `-_`, `@in`; nothing that a person can write as a call.
    let second = name.chars().nth(1);
    let is_operator = name.starts_with(['!', '-', '@'])
        || (name.starts_with('_') && !second.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_'));
    if is_operator || FUNCTIONS.contains(&name) {
        return Ok(());
    }
    let message = format!("there is no function `{}`", cut(name, 100));
    let remedy = format!("functions are has, all, exists, exists_one, map, filter, {}", FUNCTIONS.join(", "));
    Err(CompileError::new(message, remedy))
}

/// A pattern must stand in the condition itself: a pattern from an event would be evaluated event text. It is tried once
/// here, so that a wrong one is told by `check`.
fn check_regex(pattern: Option<&IdedExpr>, nesting: usize) -> Result<(), CompileError> {
    let Some(Expr::Literal(LiteralValue::String(pattern))) = pattern.map(|pattern| &pattern.expr) else {
        let remedy = "write the regular expression in quotes; to look for other text use contains(…)";
        return Err(CompileError::new("the regular expression of `matches` is not a literal", remedy));
    };
    let pattern = pattern.inner();
    if pattern.len() > MAX_REGEX || nesting >= MAX_NESTING {
        let message = format!("a regular expression is longer than {MAX_REGEX} bytes or two lists deep");
        return Err(CompileError::new(message, "make it shorter, or use contains(…) inside inner lists"));
    }
    let trial = format!("''.matches({})", Value::from(pattern));
    let tried = ENV.compile(&trial).ok().map(|program| program.execute(&Context::with_env(Arc::clone(&ENV))));
    match tried {
        Some(Ok(_)) => Ok(()),
        _ => {
            let message = format!("`{pattern}` is not a regular expression");
            Err(CompileError::new(message, "see the syntax of the Rust crate regex; look-around is not in it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::event::{Event, SOURCE_OKTA};
    use crate::playbook::facts::{FactValue, LinkBase, StepView};

    fn facts() -> Facts {
        let body = json!({
            "uuid": "u-1", "eventType": "user.risk.detect", "published": "2026-08-24T10:15:02.102Z",
            "displayMessage": "true || risk.level == 'LOW'",
            "outcome": {"result": "SUCCESS", "reason": null},
            "target": [{"id": "00u1", "type": "User", "alternateId": "ann@example.com"}],
            "debugContext": {"debugData": {"risk": "{previousLevel=LOW, level=HIGH, reasons=a, b}"}},
            "number": 7, "pattern": "(((",
        });
        let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
        Facts::from_event(event, &LinkBase::new("https://acme.okta.com", None))
    }

    #[track_caller]
    fn check(text: &str, expected: bool) {
        assert_eq!(Condition::compile(text).unwrap().evaluate(&facts()).unwrap(), expected, "{text}");
    }

    #[track_caller]
    fn check_refused(text: &str, part: &str) {
        let error = Condition::compile(text).unwrap_err();
        assert!(error.to_string().contains(part), "{text}: {error}");
    }

    #[test]
    fn a_condition_sees_of_the_event_whatever_it_reads_of_it() {
        check("event.outcome.result == 'SUCCESS' && event.number == 7 && !has(event.nothing)", true);
        check("event['number'] == 7 && has(event.outcome)", true);
        check("size(event) > 5 && event.number == 7", true);
        check("[{'number': 8}].exists(event, event.number == 8)", true);
    }

    #[test]
    fn conditions_answer() {
        check(r#"risk.level == "HIGH""#, true);
        check(r#"risk.previous_level == "HIGH" && risk.level in ["LOW", "MEDIUM"]"#, false);
        check(r#"target.login.endsWith("@example.com")"#, true);
        check(r#"target.login.matches("^ann@")"#, true);
        check("has(event.outcome.result) && !has(event.outcome.weather)", true);
        check(r#"event.target.exists(t, t.type == "User" && t.id.startsWith("00u"))"#, true);
        check(r#"risk.reasons.exists(event, event == "b")"#, true);
        check("event.number + 1 == 8 && size(risk.reasons) == 2", true);
        check("app == null", true);
    }

    #[test]
    fn text_from_events_is_never_evaluated() {
        check(r#"event.displayMessage == "true || risk.level == 'LOW'""#, true);
        check_refused("risk.reasons_text.matches(event.pattern)", "not a literal");
        check_refused("risk.reasons_text.matches('(')", "not a regular expression");
    }

    #[test]
    fn names_that_nothing_fills_are_refused() {
        check_refused(
            "weather == 1",
            "event, risk, target, app, sign_in, links, user, manager, groups, user_risk, steps",
        );
        check_refused("risk.reasons.exists(r, reason == r)", "reason");
        check_refused("now() == 1", "no function");
        check_refused("_now() == 1", "no function");
        check_refused("steps == {}", "as a whole");
        check_refused("steps['a'].state == 'x'", "as a whole");
    }

    #[test]
    fn a_field_that_never_exists_is_refused() {
        check_refused(r#"risk.lvl == "HIGH""#, "no field `risk.lvl`; the fields of `risk` are level, previous_level");
        check_refused("target.logn == 3", "no field `target.logn`; did you mean `login`?");
        check_refused("target['logn'] == 'x'", "no field `target.logn`; did you mean `login`?");
        check_refused("has(target.logn)", "no field `target.logn`");
        check_refused("steps.quarantine.stat == 'failed'", "did you mean `state`?");
        check_refused("user.nme == 'x'", "did you mean `name`?");
        check_refused("manager != null && manager.emial != null", "did you mean `email`?");
        check_refused("user_risk.level == 'HIGH'", "`user_risk` is a level and has no fields");
        check_refused("risk.reasons.exists(r, r == target.logn)", "no field `target.logn`");
        check_refused("[target.logn].exists(target, target.x == 1)", "no field `target.logn`");
    }

    #[test]
    fn a_level_that_never_is_is_refused() {
        check_refused(r#"risk.level == "High""#, "`risk.level` is never \"High\"; did you mean `HIGH`?");
        check_refused(r#"user_risk == "high""#, "did you mean `HIGH`?");
        check_refused(r#""low" != risk["previous_level"]"#, "did you mean `LOW`?");
        check_refused(r#"risk.level in ["LOW", "Mid"]"#, "never \"Mid\"; a level is LOW, MEDIUM, HIGH, UNKNOWN");
        check_refused("risk.level == 3", "not a text");
    }

    #[test]
    fn a_condition_that_cannot_be_true_or_false_is_refused() {
        check_refused("risk.level", "`risk.level` is of type string, not true or false");
        check_refused(r#"risk.level == "HIGH" && target.login"#, "`target.login` is of type string");
        check_refused(r#"risk.level == "LOW" || !(size(risk.reasons))"#, "a part of the condition is of type int");
        check_refused(r#"risk.level == "HIGH" ? sign_in.proxy : "no""#, "a part of the condition is of type string");
        check_refused("manager.email", "`manager.email` is of type string");
        check_refused("!steps.tell_security.url", "`steps.tell_security.url` is of type string");
        check_refused("risk.reasons.map(r, r)", "list");
    }

    #[test]
    fn fields_that_exist_or_may_exist_and_names_of_comprehensions_are_taken() {
        for text in [
            "has(event.weather.sun) && event.weather.sun",
            "event.anything",
            "has(target.login) && has(risk.detection)",
            "has(user.profile.costCenter) && user.profile.costCenter == 'x' || manager.profile['a b'] == 1",
            "sign_in.behaviors['New Device'] == 'POSITIVE' || sign_in.behaviors.Velocity == 'POSITIVE'",
            "sign_in.proxy && !sign_in.threat_suspected",
            "event.risks.exists(risk, risk.lvl == 'x' && risk.level == 'High')",
            "event.list.all(steps, steps.a.stat == 'x') && event.list.exists(user_risk, user_risk == 'high')",
            "groups.exists(g, g == 'Staff') && groups[0] != 'x' && risk.reasons[0].startsWith('a')",
            "user_risk in ['MEDIUM', 'UNKNOWN'] && risk.level == event.level && risk.level in event.levels",
            "manager == null || manager.email == null || app != null && app.id in ['0oa1']",
            "steps.tell_security.state in ['failed', 'retry'] && steps.a.url != null",
            "type(risk.level) == string && int(sign_in.ip) == 3 && risk['level'] == 'LOW'",
            "event.flag ? risk.level == 'LOW' : sign_in.proxy",
        ] {
            Condition::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn what_could_run_long_is_refused() {
        check_refused(&"1".repeat(MAX_CONDITION + 1), "bytes");
        check_refused("risk.reasons.all(a, risk.reasons.all(b, risk.reasons.all(c, a == c)))", "nested");
        check_refused(&format!("{}1 == 1", "1 + ".repeat(900)), "levels deep");
        check("risk.reasons.all(a, risk.reasons.exists(b, a == b))", true);
        check(&format!("{}1 == 61", "1 + ".repeat(60)), true);
    }

    #[test]
    fn any_brackets_and_garbage_end_in_an_error() {
        for text in ["", "(", "risk.", "'", "\u{0}", "risk.level ==", "{{ risk }}", "has(risk)", &"(".repeat(2_000)] {
            assert!(Condition::compile(text).is_err(), "{text}");
        }
    }

    #[test]
    fn facts_and_steps_are_told() {
        let condition = Condition::compile("user.status == 'ACTIVE' && groups.exists(user, user == 'x')").unwrap();
        assert_eq!(condition.facts_named().to_string(), "user, groups");
        assert!(!condition.names_steps());
        let condition = Condition::compile("has(steps.tell_security.url) || steps.a.state == 'failed'").unwrap();
        assert!(condition.names_steps() && condition.facts_named().is_empty());
        assert_eq!(condition.steps_named().iter().collect::<Vec<_>>(), ["a", "tell_security"]);
    }

    #[test]
    fn steps_are_read_with_underscores() {
        let mut facts = facts();
        facts.set_step("tell-security", StepView { state: "failed".to_owned(), ..StepView::default() });
        let condition = Condition::compile("steps.tell_security.state == 'failed'").unwrap();
        assert!(condition.evaluate(&facts).unwrap());
    }

    #[test]
    fn a_missing_fact_is_named_with_its_reason_only_where_it_matters() {
        let mut facts = facts();
        facts.set(Fact::User, FactValue::Missing("Okta answered 403".to_owned()));
        let error = Condition::compile("user.status == 'ACTIVE'").unwrap().evaluate(&facts).unwrap_err();
        assert_eq!(error.to_string(), "the fact `user` is not known: Okta answered 403");
        assert!(Condition::compile("risk.level == 'HIGH' || user.status == 'X'").unwrap().evaluate(&facts).unwrap());
    }

    #[test]
    fn answers_that_are_no_answers_are_errors() {
        for (text, part) in [
            ("event.displayMessage", "string"),
            ("event.weather == 1", "weather"),
            ("event.number.contains('a')", "contains"),
            ("risk.level < 1", "cannot be evaluated"),
        ] {
            let error = Condition::compile(text).unwrap().evaluate(&facts()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_flood_in_the_event_is_answered() {
        let body = json!({
            "uuid": "u-1", "eventType": "x", "published": "2026-08-24T10:15:02.102Z",
            "list": vec!["a".repeat(100); 3_000],
        });
        let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
        let facts = Facts::from_event(event, &LinkBase::new("https://acme.okta.com", None));
        let condition = Condition::compile("event.list.all(a, event.list.all(b, a == b))").unwrap();
        assert!(condition.evaluate(&facts).unwrap());
    }
}
