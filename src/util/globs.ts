/**
 * A matcher for globs as the configuration has them: `*` is any text without a slash, `**` any text, `?` one
 * character; everything else is literal. They match whole names, such as `registry.example/app/*:*`.
 */
export function globMatcher(globs: readonly string[]): (name: string) => boolean {
  const patterns = globs.map((glob) => {
    const source = glob.replace(/\*\*|[*?]|[^*?]+/g, (part) => {
      if (part === '**') return '.*';
      if (part === '*') return '[^/]*';
      return part === '?' ? '[^/]' : part.replace(/[\\^$.|+()[\]{}]/g, '\\$&');
    });
    return new RegExp(`^${source}$`, 's');
  });
  return (name) => patterns.some((pattern) => pattern.test(name));
}
