"""The meaning of words in series descriptions, in many languages and abbreviations.

Descriptions are free text: vendor protocol names, local habits, any language, spelling errors. Patterns are
searched in `normalised` text. They are in lower case, without accents, and with one blank for everything that
is not a letter, digit or plus sign.
"""

# ruff: noqa: RUF001 - the words of several alphabets are the point

from __future__ import annotations

import re
import unicodedata

_NOT_A_WORD = re.compile(r"[^\w+]|_")
_EAST_ASIAN = re.compile(r"([\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]+)")
_LETTERS = str.maketrans({"ı": "i", "ł": "l", "ø": "o", "đ": "d", "æ": "ae"})
"""Letters that Unicode does not decompose into a plain letter and an accent."""


def normalised(text: str) -> str:
    """Text in lower case, without accents or full-width letters, words separated by single blanks.

    East Asian text becomes words of its own, since it is written without blanks between words.
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn").translate(_LETTERS)
    plain = _EAST_ASIAN.sub(r" \1 ", unicodedata.normalize("NFKC", plain))
    return " ".join(_NOT_A_WORD.sub(" ", plain).split())


FLAIR = re.compile(
    r"flair|dark ?fl(uid)?\b|\bda fl\b|dunkel ?fl|fluid ?attenuat|\b(flr|flir|flar|flari|fliar|falir|flai)\b"
    r"|фл[аеэ]ир|[压壓]水|[黑抑]水|水抑制|フレア|플레어"
)
INVERSION = re.compile(r"\b(tirm|trim|ir)\b")
"""Inversion recovery: a FLAIR or a STIR; the protocol's name may say which."""

T2 = re.compile(r"\bt2\w*")
T1 = re.compile(r"\bt1\w*|mprage|mp2rage|\bspgr\b")
ANOTHER_INVERSION = re.compile(
    r"\bdir\b(?! ?(ap|pa|lr|rl|is|si)\b)|double ?(ir\b|inversion)|\bstir\b|\bpsir\b|phase ?sensitive"
)
"""Contrasts with an inversion pulse that are not FLAIR."""

LOCALISER = re.compile(
    r"\bscouts?\b|locali[sz]|lokali[sz]|\bloc\b|\bsurvey\b|\b3 ?plane\b|\bplan scan\b|\breperage|ubersicht"
    r"|uebersicht|\btopogram|\bscanogram|локал|разметк|定位|位置決|위치"
)
DERIVED = re.compile(
    r"\bmpr\w*|\bmip\b|minip|\brefor\w*|\brfmt\b|\bsub(s?tra\w*)?\b|soustr|sottraz|sustrac|\bresta\b"
    r"|\breco(n\w*)?\b|\breko(n\w*)?\b|ricostr|rikonst|synth|sintet|syntet|\bsymap|\bsymri\b|\bmagic\b"
    r"|\bfus(ed|ion)|coreg|реконстр|реформат|субтракц|重建|重组|再構成|合成|减影|差分|サブトラ|재구성"
)
REFORMAT = re.compile(r"\bmpr\w*|\brefor\w*|\brfmt\b|реформат|重建|重组|再構成|재구성")
"""The derived images that show the acquired values in other planes, and nothing else."""

NOT_DERIVED = re.compile(r"\b(air|deep|dl|ai) reco(n\w*)?\b")
"""Reconstruction by a network at the scanner, such as AIR Recon DL: still an acquired series."""

DIFFUSION = re.compile(
    r"\bdwi\b|\bdiff\w*|\bdti\b|\bd?adc\b|\btrace\w*|\bs?b ?(5|8|10|12|15|20)00\b|диффуз|[弥彌]散"
    r"|[扩擴拡]散|확산"
)

_AGENT = (
    r"(contr|[ck]ontras[tc]\w*|con|контраст\w*|gd\w*|gad\w*|гад\w*|km|ce|mdc|c|k ?l|inj\w*|iniez\w*|iny\w*|iv"
    r"|ку|enhanc\w*|bolus)"
)
_WITHOUT = (
    r"(pre|no|non|not|without|w o|wo|before|ohne|kein\w*|vor|sans|avant|sin|antes|senza|prima|sem|zonder"
    r"|voor|utan|fore|uden|uten|for|bez|przed|pred|без|до|native?)"
)
NO_CONTRAST = re.compile(
    rf"\b{_WITHOUT} ((de|del|di|do|da|the|iv|i v|в в) )?{_AGENT}\b|\bs c\b|\bpre(con|kon|gad|gd)\w*|\bnonc\w*"
    r"|\bunenhanced|\bkontrast ?s[iu]z\w*|(造影|增[强強])前|[非未](造影|增[强強])|조영 ?전|비조영"
)
_AFTER_SOMETHING_ELSE = re.compile(
    r"\bpost ?(op\w*|surg\w*|biops\w*|tx|treat\w*|ther\w*|rt|radio\w*|chemo\w*|rct|ictal|lp|shunt\w*|resec\w*"
    r"|trauma\w*|stroke|natal|partum|embol\w*|coil\w*|thromb\w*|fossa)\b"
)
CONTRAST = re.compile(
    r"\bpost\b|\bpost(c|con|k|km|gd|gad|iv|inj)\w*|\bgd\w*|\bgad\w*|гадолин|\bkm\b|\bce\b"
    r"|\bcontr\b|\b[ck]ontras[tc]\w*|контраст|\bку\b|\bmdc\b|\bmdk\b|\bciv\b|\binj(ec\w*|ek\w*)?\b"
    r"|\biniez\w*|\binyec\w*|\biv ?\+|\+ ?iv\b|\+ ?c\b|\bc ?\+|\+ ?gd|\bwith c\b|\b(po|s) k ?l\b|\benhanced"
    r"|\bdelayed|\btardi[vf]|dotarem|clariscan|magnevist|multihance|prohance|omniscan|vueway|elucirem"
    r"|造影|[增増][强強]|조영"
)
_NO_AGENT = re.compile(
    r"([0 ]*|none?|nil|na|n a|unknown|plain|nativ\w*|(no|not|non|kein\w*|ohne|without|w o|sans|sin|senza|sem"
    r"|zonder|utan|uden|bez|без|нет|无|なし)\b.*)"
)
"""Text in a contrast agent field that means that no agent was given."""

_ELSEWHERE = re.compile(
    r"spine(?!cho|l)|spinal|\b[ctl] ?sp\b|cervi[ck]|servikal|thora[ckx]|torak|dorsal|\blumb[aeo]|olumb[ao]"
    r"|lumbal|\b(dorso|thoraco)?lomb(a(ires?|l|re?)\b|osacr|o\b)|sacr(al|um|o|ee?)\b|sacroil|\b[hbl]ws\b"
    r"|wirbel|myelo(?!ma)|vertebr(?!o ?bas)|\bbrachi|colum?na\b|coluna\b|omurga|kregoslup|szyjn|ryggrad"
    r"|wervel|\b[clt]wk\b|позвон|шеин|груд|поясн|[颈頸胸腰脊]椎|脊[髓髄柱]|경추|요추|척추"
    r"|\bknees?\b|\bknie(s|gelenk)?\b|genou|rodilla|ginocchio|膝|\bshoulders?\b|schulter(gelenk)?\b"
    r"|epaule|hombro|\bspalla\b|肩|abdom|pelvi[cs]|\bbecken\b|\bliver\b|\bleber(mrt)?\b(?! ?s\b)|\bfoie\b"
    r"|prostat|\bhips?\b|\bhuft|\bankle|\bwrist|\borbit(a\w{0,2}|e[ns]?|s|aler?|ales)?\b|augenhohle"
    r"|орбит|глазн|眼[眶窩窝]|(?<!head[ +])(?<!head and )\bneck\b|\bcardiac|\bheart\b|\bherz\b|\bbreasts?\b"
    r"|\biacs?\b|inner ear|innenohr|pituitar|hypophys"
)
_HEAD = re.compile(
    r"head|brain|skull|kopf|schadel|schaedel|cereb|neuro|tete|cran[ieo]|encef|enceph|cabe[zc]a|testa|hoofd|hersen"
    r"|beyin|kafa|glowa|mozg|huvud|hjarn|hoved|голов|мозг|[头頭颅顱脑脳腦]|두부|뇌"
)
_HEAD_NAMED = re.compile(
    rf"(?!brain ?(view|lab)|neuro|cranio ?cerv)\b({_HEAD.pattern})|[头頭颅顱脑脳腦]|두부|뇌"
)
"""In free text: neither a part of another word nor a sequence (BrainVIEW), a software or a speciality."""

_NO_PART = re.compile(r"(unknown|other|none|na|n a|undefined|unspecified|mr|routine|whole ?body|\d*)")

REPEAT = re.compile(
    r"\brepeat|\brpt\b|\brep\b|\brr\b|\brerun|\bredo\b|\bwdh|wiederhol|\brepet|\bripet|herhal|повтор|重扫|再撮"
)
UNCORRECTED = re.compile(r"^orig\b")
"""GE names the copy without coil correction so."""


def contrast_word(words: str) -> str:
    """The word in normalised text that says that contrast agent was given; empty if there is none."""
    match = CONTRAST.search(_AFTER_SOMETHING_ELSE.sub(" ", NO_CONTRAST.sub(" ", words)))
    return match.group().strip() if match else ""


def names_an_agent(value: str) -> bool:
    """Whether a contrast agent field names an agent. Some sites fill in that none was given."""
    return _NO_AGENT.fullmatch(normalised(value)) is None


def other_part_of_the_body(words: str) -> str:
    """The word in normalised text that names another part of the body; empty if there is none."""
    match = _ELSEWHERE.search(words)
    return match.group().strip() if match else ""


def names_the_head(words: str) -> bool:
    """Whether normalised text names the head or the brain, beside whatever else."""
    return _HEAD_NAMED.search(words) is not None


def is_a_head(part: str) -> bool:
    """Whether Body Part Examined names the head, alone or with another part."""
    return _HEAD.search(normalised(part)) is not None


def may_be_a_head(part: str) -> bool:
    """Whether Body Part Examined names the head or no particular part."""
    words = normalised(part)
    return _NO_PART.fullmatch(words) is not None or _HEAD.search(words) is not None
