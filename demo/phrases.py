"""How a question is worded, and what counts as a whole sentence, in each of the demo's languages."""

import re
from dataclasses import dataclass
from enum import StrEnum

PROGRAMS = {
    "scalc": "LibreOffice Calc",
    "swriter": "LibreOffice Writer",
    "simpress": "LibreOffice Impress",
    "sdraw": "LibreOffice Draw",
    "smath": "LibreOffice Math",
    "schart": "LibreOffice Chart",
    "sbasic": "LibreOffice Basic",
    "sdatabase": "LibreOffice Base",
    "shared": "LibreOffice",
}


class Kind(StrEnum):
    """What a question asks for."""

    QUESTION = "question"  # the heading is a question itself
    FUNCTION = "function"  # what a spreadsheet function does
    COMMAND = "command"  # what a page's command or dialog does
    DETAIL = "detail"  # what a part of it does
    ACCESS = "access"  # where a command is in the menus
    DEFINITION = "definition"  # what something is
    SECTION = "section"  # what a document says about a subject


@dataclass(frozen=True, slots=True)
class Language:
    """One language's phrases and patterns."""

    works: dict[str, str]
    help: str  # what the help of a {program} is called
    # {topic}: the heading, or what is defined; {place}: the program or the work; {page}: the title of the page.
    questions: dict[Kind, tuple[str, ...]]
    between_sentences: re.Pattern[str]
    joint: str  # between two sentences
    sentence: re.Pattern[str]  # a whole one
    leads_on: re.Pattern[str]  # in a sentence that says nothing without what comes after it, or elsewhere
    definition: re.Pattern[str]  # a sentence that defines its group `topic`
    no_topic: re.Pattern[str]  # in a topic: a word that stands for something else, or no noun
    does: re.Pattern[str]  # an answer that says what a command does
    access: re.Pattern[str]  # an answer that says where a command is
    word: re.Pattern[str]  # of a heading, which an answer about it takes up


# A sentence without a subject, as English help texts have them: the subject is the heading.
WITHOUT_SUBJECT = re.compile(
    r"^(?:Activates|Adds|Adjusts|Aligns|Allows|Anchors|Applies|Assigns|Calculates|Calls|Changes|Closes|Contains|"
    r"Converts|Copies|Creates|Declares|Defines|Deletes|Determines|Displays|Distributes|Draws|Edits|Enables|Exports|"
    r"Fills|Filters|Finds|Flips|Hides|Includes|Inserts|Jumps|Lets|Lists|Maintains|Modifies|Moves|Opens|Plays|Prevents|"
    r"Prints|Protects|Reduces|Removes|Renames|Repeats|Replaces|Resets|Resizes|Restarts|Returns|Rounds|Runs|Saves|"
    r"Searches|Selects|Sets|Shows|Sorts|Specifies|Starts|Stores|Switches|Tests|Toggles|Updates|Uses|Wraps) "
)

LANGUAGES = {
    "en": Language(
        works={
            "debian-reference": "the Debian Reference",
            "debian-handbook": "the Debian Administrator's Handbook",
            "developers-reference": "the Debian Developer's Reference",
            "debian-faq": "the Debian FAQ",
            "installation-guide": "the Debian Installation Guide",
            "maint-guide": "the Debian New Maintainers' Guide",
            "aptitude": "the Aptitude User's Manual",
        },
        help="{program} Help",
        questions={
            Kind.QUESTION: ("{topic}",),
            Kind.FUNCTION: ("What does the function {topic} do in {place}?", "What is {topic} for in {place}?"),
            Kind.COMMAND: ("What does “{topic}” do in {place}?", "What is “{topic}” for in {place}?"),
            Kind.DETAIL: ("What is “{topic}” in “{page}” of {place}?", "In {place}, what is “{topic}” under “{page}”?"),
            Kind.ACCESS: ("How do I open “{topic}” in {place}?", "Where do I find “{topic}” in {place}?"),
            Kind.DEFINITION: ("What is {topic}?", "Can you explain {topic}?"),
            Kind.SECTION: ("What does {place} say about “{topic}”?", "Tell me about “{topic}” from {place}."),
        },
        between_sentences=re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)\s+(?=[A-Z“\"(])"),
        joint=" ",
        sentence=re.compile(r"^[A-Z][^|→]{19,}[.!]$"),
        leads_on=re.compile(
            r"\b(?:following|below|above|see|refer to|as follows|this (?:chapter|section|page|example)|for example)\b",
            re.IGNORECASE,
        ),
        definition=re.compile(
            r"^(?P<topic>(?:The |An? )?[\w+/-][\w.+/-]*(?: [\w+/-][\w.+/-]*){0,3}?) (?:is|are) (?:an?|the|one of) "
        ),
        no_topic=re.compile(
            r"\b(?:this|that|it|there|these|those|here|they|he|she|you|we|one|another|what|which|if|when|each|all|some|"
            r"other|first|second|next|last|same|only|in|on|for|to|since|because|as|by|with|but|and|so|now|"
            r"problem|reason|result|purpose|goal|idea|easiest|best|simplest|most|latter|former|number|order|how|who|where|"
            r"\w+ly)\b|^.$|\d$",
            re.IGNORECASE,
        ),
        does=WITHOUT_SUBJECT,
        access=re.compile(r"^(?:Choose|Click|Double-click|Right-click|Open|Select|Press|On the|In the|From the|With) "),
        word=re.compile(r"[A-Za-z0-9]{5,}|[A-Z0-9]{3,}"),
    ),
    "ja": Language(
        works={
            "debian-reference": "Debian リファレンス",
            "debian-handbook": "Debian 管理者ハンドブック",
            "developers-reference": "Debian 開発者リファレンス",
            "debian-faq": "Debian FAQ",
            "installation-guide": "Debian インストールガイド",
            "maint-guide": "Debian 新メンテナーガイド",
            "aptitude": "Aptitude ユーザーマニュアル",
        },
        help="{program} ヘルプ",
        questions={
            Kind.QUESTION: ("{topic}",),
            Kind.FUNCTION: ("{place} の関数 {topic} は何をしますか？", "{place} の {topic} 関数は何に使いますか？"),
            Kind.COMMAND: ("{place} の「{topic}」は何をしますか？", "{place} の「{topic}」は何に使いますか？"),
            Kind.DETAIL: (
                "{place} の「{page}」にある「{topic}」は何ですか？",
                "{place} の「{page}」の「{topic}」は何に使いますか？",
            ),
            Kind.ACCESS: ("{place} で「{topic}」を開くにはどうしますか？", "{place} の「{topic}」はどこにありますか？"),
            Kind.DEFINITION: ("{topic}とは何ですか？", "{topic}について説明してください。"),
            Kind.SECTION: (
                "{place}は「{topic}」について何と述べていますか？",
                "{place}の「{topic}」について教えてください。",
            ),
        },
        between_sentences=re.compile(r"(?<=。)\s*(?=.)"),
        joint="",
        sentence=re.compile(r"^[^\s)）、。|→-][^|→]{8,}。$"),
        leads_on=re.compile(
            r"以下|次の|次に|下記|上記|参照|ご覧|見てください|本[章節]|この[章節例]|たとえば|例えば|前者|後者"
        ),
        definition=re.compile(
            r"^(?P<topic>[^、。「」()\"をがもる]{2,20}?[^、。「」()\"をがもにでとのるたい ])(?: ?とは、?| ?は、)"
            r"[^。]*(?:[^ぁ-ん]です|ものです|ことです|である|をいいます|を指します)。$"
        ),
        no_topic=re.compile(
            r"^(?:これ|それ|あれ|ここ|そこ|この|その|あの|なお|また|現在|注意|もし|ただし|しかし|通常|実際|一般|最|"
            r"他|同じ|今|以前|多く|すべて|全て|両方|各|どの|何|私|あなた|目的|理由|問題|結果|場合|名前|既定|デフォルト)"
            r"|[ぁ-ん]$|行目$|\d$|とき$|上$|時$|際$"
        ),
        does=re.compile(r"^[^。]*(?<!あり)(?<!でき)(?<!なり)(?<!い)(?<!れ)ます。"),
        access=re.compile(r"(?:します|選択|選びます|ください|開きます)。$"),
        word=re.compile(r"[ァ-ヶー]{2,}|[一-龥]{2,}|[A-Za-z0-9]{3,}"),
    ),
}
