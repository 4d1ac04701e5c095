/**
 * Kubernetes' `$(NAME)` expansion of commands, arguments and environment values (the rules are those of
 * the `command` and `env.value` fields of the Pod API): `$(NAME)` is replaced when `NAME` is known and
 * stays as it is when not, `$$` is a literal `$`, every other `$` is kept.
 */
export function expand(text: string, values: ReadonlyMap<string, string>): string {
  let out = '';
  for (let at = 0; at < text.length; at++) {
    const char = text.charAt(at);
    const next = text.charAt(at + 1);
    if (char !== '$' || (next !== '$' && next !== '(')) {
      out += char;
      continue;
    }
    if (next === '$') {
      out += '$';
      at += 1;
      continue;
    }
    const end = text.indexOf(')', at + 2);
    if (end < 0) {
      out += '$(';
      at += 1;
      continue;
    }
    const name = text.slice(at + 2, end);
    out += values.get(name) ?? `$(${name})`;
    at = end;
  }
  return out;
}
