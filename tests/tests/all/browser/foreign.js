// The headings, labels, buttons and menu items of a page that are not in its language `arguments[0]`. What declares another
// language, is code or a name that is the same in every language is passed over.
const japanese = /[\u3040-\u30ff\u4e00-\u9fff]/;
const same = /^[^A-Za-z]*$|^[A-Z0-9][A-Z0-9 .:/-]*$|^(Sekisho|micro-rho|epsilon)$/;
const language = arguments[0];
const wrong = [];
if (document.documentElement.lang !== language) {
    wrong.push(`the page declares lang="${document.documentElement.lang}"`);
}
const words = element => {
    const copy = element.cloneNode(true);
    copy.querySelectorAll("code, kbd, samp, pre, bdi, script, option, [translate=no]").forEach(e => e.remove());
    copy.querySelectorAll("[lang]").forEach(e => e.lang === language || e.remove());
    return copy.textContent.replace(/\s+/g, " ").trim();
};
const asked = "title, h1, h2, h3, h4, label, legend, button, th[scope=col], caption, summary, dt, nav a, header a, footer a";
for (const element of document.querySelectorAll(asked)) {
    const declared = element.closest("[lang]");
    if (declared && declared !== document.documentElement && declared.lang !== language) continue;
    if (element.closest("[translate=no], svg")) continue;
    const text = words(element);
    const foreign = language === "ja" ? !japanese.test(text) && !same.test(text) : japanese.test(text);
    if (foreign) wrong.push(`${element.tagName.toLowerCase()}: ${text.slice(0, 80)}`);
}
return wrong;
