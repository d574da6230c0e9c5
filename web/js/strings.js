// Every text that the page shows, from strings/<language>.json: in the user's language where there is a table, else English.
import { app } from "../../../scripts/app.js";

const LANGUAGES = ["en", "zh", "zh-TW", "ja", "ko", "fr", "de", "es", "pt-BR", "ru"];

const table = (language) =>
  fetch(new URL(`strings/${language}.json`, import.meta.url)).then((file) => file.json(), () => ({}));
const wanted = app.ui?.settings?.getSettingValue?.("Comfy.Locale") ?? "en";
const english = await table("en");
const own = wanted !== "en" && LANGUAGES.includes(wanted) ? await table(wanted) : {};

// {name} in the text stands for values.name.
export const text = (key, values = {}) =>
  (own[key] ?? english[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
