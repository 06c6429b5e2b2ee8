//! Block Kit: what a message may show beside its text, and how it is made to fit (Slack, Block Kit reference).
//!
//! Which blocks there are stands in the configuration and is checked there. What their texts hold is known only when they
//! are filled in: then a text that is too long is cut, and what is empty is left out, because Slack refuses the whole
//! message for either, and an alert that is lost is worse than one that is short.

use serde_json::{Map, Value, json};

use super::mrkdwn;

/// One block.
pub(super) type Block = Map<String, Value>;

/// The most blocks of one message.
const MAX_BLOCKS: usize = 50;
/// The most characters of a text, where no other bound holds.
const MAX_TEXT: usize = 3000;
/// The most characters of a header.
const MAX_HEADER: usize = 150;
/// The most fields of a section, and the most characters of one.
const MAX_FIELDS: usize = 10;
const MAX_FIELD: usize = 2000;
/// The most elements of a context.
const MAX_CONTEXT: usize = 10;
/// The most buttons of a row, and the most characters on one.
const MAX_BUTTONS: usize = 25;
const MAX_LABEL: usize = 75;
/// The most characters of the text in place of an image.
const MAX_ALT: usize = 2000;
/// The most characters of all texts together. Slack documents no bound, and refuses messages from some 13,200 on with
/// `msg_blocks_too_long`.
const MAX_TOGETHER: usize = 12_000;

/// The blocks that a message may hold. `markdown` is not among them: its links are `[text](url)`, which the escaping of
/// mrkdwn leaves alive; nor is `rich_text`, whose texts are not mrkdwn at all.
const KINDS: [&str; 6] = ["section", "header", "context", "divider", "actions", "image"];

/// Refuses blocks of which Slack would refuse any, whatever their texts say.
pub(super) fn check(blocks: &[Block]) -> Result<(), String> {
    if blocks.is_empty() || blocks.len() > MAX_BLOCKS {
        return Err(format!("`blocks` holds none, or more than {MAX_BLOCKS}"));
    }
    for (index, block) in blocks.iter().enumerate() {
        check_block(block).map_err(|why| format!("`blocks[{index}]` {why}"))?;
    }
    Ok(())
}

/// Finds a text that is too long as it is written, without templates in it; one that only becomes so is cut.
pub(super) fn check_written(blocks: &[Block]) -> Result<(), String> {
    let mut fitting = Fitting::default();
    for (index, block) in blocks.iter().enumerate() {
        let mut block = Value::Object(block.clone());
        shorten_templates(&mut block);
        if let Value::Object(block) = block {
            fitting.fit(block);
        }
        if let Some(most) = fitting.cut {
            return Err(format!("`blocks[{index}]` holds a text of more than {most} characters, which Slack refuses"));
        }
    }
    Ok(())
}

/// The blocks as they are sent: nothing in them is longer than Slack takes, nothing is empty, and nothing is a link but
/// what its markup makes one.
pub(super) fn fitted(blocks: Vec<Block>) -> Vec<Value> {
    let mut fitting = Fitting::default();
    blocks.into_iter().filter_map(|block| fitting.fit(block)).map(Value::Object).collect()
}

fn check_block(block: &Block) -> Result<(), String> {
    match kind_of(block) {
        "markdown" => {
            Err("is a `markdown` block, in which an event could place links; use `section` with `mrkdwn`".into())
        }
        "section" => check_section(block),
        "header" => check_text(block.get("text")),
        "context" => check_list(at(block, "elements"), "elements", MAX_CONTEXT, |element| match kind_in(element) {
            "image" => check_image(element),
            _ => check_text_object(element),
        }),
        "actions" => check_list(at(block, "elements"), "elements", MAX_BUTTONS, check_button),
        "image" => check_image(&Value::Object(block.clone())),
        "divider" => Ok(()),
        other => Err(format!("is of the type `{}`, and can be one of {}", short(other), KINDS.join(", "))),
    }
}

fn check_section(block: &Block) -> Result<(), String> {
    if block.contains_key("text") {
        check_text(block.get("text"))?;
    }
    if block.contains_key("fields") || !block.contains_key("text") {
        check_list(at(block, "fields"), "fields", MAX_FIELDS, check_text_object)?;
    }
    match block.get("accessory") {
        None => Ok(()),
        Some(image) if kind_in(image) == "image" => check_image(image),
        Some(button) => check_button(button),
    }
}

fn check_list(
    list: &Value,
    name: &str,
    most: usize,
    check: impl Fn(&Value) -> Result<(), String>,
) -> Result<(), String> {
    match list.as_array() {
        Some(list) if (1..=most).contains(&list.len()) => list.iter().try_for_each(check),
        _ => Err(format!("needs `{name}`, a list of 1 to {most}")),
    }
}

fn check_text(text: Option<&Value>) -> Result<(), String> {
    check_text_object(text.unwrap_or(&Value::Null))
}

fn check_text_object(text: &Value) -> Result<(), String> {
    let fits = matches!(kind_in(text), "mrkdwn" | "plain_text") && text.get("text").is_some_and(Value::is_string);
    if fits { Ok(()) } else { Err("needs a text such as { type = \"mrkdwn\", text = \"…\" }".to_owned()) }
}

/// Buttons lead somewhere: nobody here could be told that one was pressed.
fn check_button(button: &Value) -> Result<(), String> {
    let fits = kind_in(button) == "button" && button.get("url").is_some_and(Value::is_string);
    if !fits {
        return Err("holds something other than { type = \"button\", text = …, url = \"…\" }".to_owned());
    }
    check_text(button.get("text"))
}

fn check_image(image: &Value) -> Result<(), String> {
    let fits = ["image_url", "alt_text"].iter().all(|name| image.get(*name).is_some_and(Value::is_string));
    if fits { Ok(()) } else { Err("holds an image without `image_url` and `alt_text`".to_owned()) }
}

/// What is being made to fit.
struct Fitting {
    /// How many characters all further texts may have.
    left: usize,
    /// The bound that the last text went over.
    cut: Option<usize>,
}

impl Default for Fitting {
    fn default() -> Self {
        Self { left: MAX_TOGETHER, cut: None }
    }
}

impl Fitting {
    /// The block as it is sent; `None` when nothing would be seen of it.
    fn fit(&mut self, mut block: Block) -> Option<Block> {
        match kind_of(&block) {
            "section" => {
                self.fit_member(&mut block, "text", MAX_TEXT);
                self.fit_list(&mut block, "fields", |fitting, field| fitting.fit_text(field, MAX_FIELD));
                if let Some(accessory) = block.get_mut("accessory")
                    && !self.fit_element(accessory)
                {
                    block.remove("accessory");
                }
                (block.contains_key("text") || block.contains_key("fields")).then_some(block)
            }
            "header" => self.fit_member(&mut block, "text", MAX_HEADER).then_some(block),
            "context" | "actions" => self.fit_list(&mut block, "elements", Self::fit_element).then_some(block),
            "image" => {
                self.fit_member(&mut block, "title", MAX_ALT);
                self.fit_image(&mut block).then_some(block)
            }
            _ => Some(block),
        }
    }

    /// Whether a text is left of a member. One that is empty is taken out.
    fn fit_member(&mut self, block: &mut Block, name: &str, most: usize) -> bool {
        let stays = block.get_mut(name).is_some_and(|text| self.fit_text(text, most));
        if !stays {
            block.remove(name);
        }
        stays
    }

    /// Whether anything is left of a list. One that is empty is taken out.
    fn fit_list(&mut self, block: &mut Block, name: &str, fit: impl Fn(&mut Self, &mut Value) -> bool) -> bool {
        if let Some(Value::Array(list)) = block.get_mut(name) {
            list.retain_mut(|item| fit(self, item));
        }
        let stays = block.get(name).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        if !stays {
            block.remove(name);
        }
        stays
    }

    fn fit_element(&mut self, element: &mut Value) -> bool {
        let kind = kind_in(element).to_owned();
        match (kind.as_str(), element) {
            ("button", Value::Object(button)) => fit_url(button, "url") && self.fit_member(button, "text", MAX_LABEL),
            ("image", Value::Object(image)) => self.fit_image(image),
            ("mrkdwn" | "plain_text", text) => self.fit_text(text, MAX_TEXT),
            _ => false,
        }
    }

    fn fit_image(&mut self, image: &mut Block) -> bool {
        fit_url(image, "image_url") && image.get_mut("alt_text").is_some_and(|alt| self.fit_string(alt, MAX_ALT))
    }

    /// A text object. It links nothing but what its markup links (Slack, text object, `verbatim`).
    fn fit_text(&mut self, text: &mut Value, most: usize) -> bool {
        if kind_in(text) == "mrkdwn"
            && let Value::Object(text) = text
        {
            text.insert("verbatim".to_owned(), json!(true));
        }
        text.get_mut("text").is_some_and(|string| self.fit_string(string, most))
    }

    fn fit_string(&mut self, string: &mut Value, most: usize) -> bool {
        let Value::String(text) = string else { return false };
        let short = mrkdwn::cut(text, most.min(self.left));
        if short != *text {
            self.cut = Some(most.min(self.left));
        }
        self.left = self.left.saturating_sub(short.chars().count());
        *text = short;
        !text.trim().is_empty()
    }
}

/// Addresses are no mrkdwn: entities would be taken for parts of them.
fn fit_url(element: &mut Block, name: &str) -> bool {
    let Some(Value::String(url)) = element.get_mut(name) else { return false };
    *url = url.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    !url.trim().is_empty()
}

/// Puts a short word in place of every text that holds a template.
fn shorten_templates(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("{{") || text.contains("{%") => *text = "…".to_owned(),
        Value::Array(list) => list.iter_mut().for_each(shorten_templates),
        Value::Object(object) => object.values_mut().for_each(shorten_templates),
        _ => {}
    }
}

fn at<'b>(block: &'b Block, name: &str) -> &'b Value {
    block.get(name).unwrap_or(&Value::Null)
}

fn kind_of(block: &Block) -> &str {
    at(block, "type").as_str().unwrap_or_default()
}

fn kind_in(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn short(text: &str) -> String {
    text.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(value: Value) -> Vec<Block> {
        serde_json::from_value(value).unwrap()
    }

    fn section(text: &str) -> Value {
        json!({"type": "section", "text": {"type": "mrkdwn", "text": text}})
    }

    #[track_caller]
    fn refuses(value: Value, part: &str) {
        let why = check(&blocks(value)).unwrap_err();
        assert!(why.contains(part), "{why}");
    }

    #[test]
    fn what_slack_would_refuse_whatever_it_says_is_told_before() {
        let button =
            json!({"type": "button", "text": {"type": "plain_text", "text": "User"}, "url": "{{ links.user }}"});
        let image = json!({"type": "image", "image_url": "https://example.com/a.png", "alt_text": "a"});
        let whole = json!([
            section("{{ user.login }}"),
            {"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}], "accessory": button},
            {"type": "header", "text": {"type": "plain_text", "text": "x"}},
            {"type": "context", "elements": [{"type": "plain_text", "text": "x"}, image]},
            {"type": "actions", "elements": [button]},
            {"type": "divider"},
            image,
        ]);
        check(&blocks(whole)).unwrap();
        refuses(json!([]), "none, or more than 50");
        refuses(json!(vec![section("x"); 51]), "none, or more than 50");
        refuses(json!([section("x"), {"type": "markdown", "text": "[a](b)"}]), "`blocks[1]` is a `markdown` block");
        refuses(json!([{"type": "rich_text", "elements": []}]), "`rich_text`, and can be one of section, header");
        refuses(json!([{"typ": "section"}]), "is of the type ``");
        refuses(json!([{"type": "section"}]), "needs `fields`");
        refuses(json!([{"type": "section", "text": "x"}]), "needs a text such as");
        refuses(json!([{"type": "section", "fields": vec![json!({"type": "mrkdwn", "text": "x"}); 11]}]), "1 to 10");
        refuses(json!([{"type": "context", "elements": [{"type": "mrkdwn"}]}]), "needs a text such as");
        refuses(json!([{"type": "actions", "elements": [{"type": "button", "action_id": "a"}]}]), "other than");
        refuses(json!([{"type": "image", "image_url": "https://example.com/a.png"}]), "without `image_url`");
    }

    #[test]
    fn a_text_that_is_too_long_as_it_is_written_is_told_and_one_with_a_template_is_not() {
        let long = "x".repeat(3001);
        assert!(check_written(&blocks(json!([section("x"), section(&long)]))).unwrap_err().contains("`blocks[1]`"));
        check_written(&blocks(json!([section(&format!("{long}{{{{ user.login }}}}"))]))).unwrap();
        let header = |text: &str| json!([{"type": "header", "text": {"type": "plain_text", "text": text}}]);
        assert!(check_written(&blocks(header(&"x".repeat(151)))).unwrap_err().contains("150 characters"));
        check_written(&blocks(header(&"x".repeat(150)))).unwrap();
    }

    #[test]
    fn texts_are_cut_one_by_one_and_all_together() {
        let sent = fitted(blocks(json!([section(&"é".repeat(3001)), section("end")])));
        assert_eq!(sent[0]["text"]["text"], format!("{}…", "é".repeat(2999)));
        assert_eq!(sent[1]["text"]["text"], "end");
        let many = fitted(blocks(json!(vec![section(&"x".repeat(2900)); 8])));
        let all: usize = many.iter().map(|block| block["text"]["text"].as_str().unwrap().chars().count()).sum();
        assert_eq!((many.len(), all), (5, 12_000), "what is not seen any more is left out");
        let label =
            json!({"type": "button", "text": {"type": "plain_text", "text": "x".repeat(80)}, "url": "https://a"});
        let sent = fitted(blocks(json!([{"type": "actions", "elements": [label]}])));
        assert_eq!(sent[0]["elements"][0]["text"]["text"].as_str().unwrap().chars().count(), 75);
    }

    #[test]
    fn what_turned_out_empty_is_left_out() {
        let empty = json!({"type": "mrkdwn", "text": " \n"});
        let button = |url: &str| json!({"type": "button", "text": {"type": "plain_text", "text": "x"}, "url": url});
        let sent = fitted(blocks(json!([
            {"type": "section", "text": empty, "fields": [empty, {"type": "mrkdwn", "text": "a"}]},
            {"type": "section", "text": empty},
            {"type": "context", "elements": [empty]},
            {"type": "actions", "elements": [button(""), button("https://example.com/?a=1&amp;b=2")]},
            {"type": "divider"},
        ])));
        assert_eq!(
            json!(sent),
            json!([
                {"type": "section", "fields": [{"type": "mrkdwn", "text": "a", "verbatim": true}]},
                {"type": "actions", "elements": [button("https://example.com/?a=1&b=2")]},
                {"type": "divider"},
            ])
        );
    }

    #[test]
    fn no_text_of_a_block_links_what_is_not_marked_as_a_link() {
        let sent = fitted(blocks(json!([
            {"type": "section", "text": {"type": "mrkdwn", "text": "http://evil.example @channel", "verbatim": false},
             "fields": [{"type": "mrkdwn", "text": "y"}, {"type": "plain_text", "text": "z"}]},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": "w"}]},
        ])));
        assert_eq!(
            json!(sent),
            json!([
                {"type": "section",
                 "text": {"type": "mrkdwn", "text": "http://evil.example @channel", "verbatim": true},
                 "fields": [{"type": "mrkdwn", "text": "y", "verbatim": true}, {"type": "plain_text", "text": "z"}]},
                {"type": "context", "elements": [{"type": "mrkdwn", "text": "w", "verbatim": true}]},
            ])
        );
    }
}
