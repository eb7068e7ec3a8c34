// Judges JSON texts: one in base64 a line, '1' or '0' a line. Jackson's streaming parser, with its default limits.
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.CharBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Base64;

public class Parse {
    private static final JsonFactory STRICT =
        JsonFactory.builder().enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION).build();

    public static void main(String[] args) throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        StringBuilder said = new StringBuilder();
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            said.append(isTaken(Base64.getDecoder().decode(line)) ? "1\n" : "0\n");
        }
        System.out.print(said);
    }

    private static boolean isTaken(byte[] text) {
        try (JsonParser parser = STRICT.createParser(text)) {
            int values = 0;
            int depth = 0;
            for (JsonToken token = parser.nextToken(); token != null; token = parser.nextToken()) {
                if (token.isStructStart()) {
                    depth++;
                } else if (token.isStructEnd()) {
                    depth--;
                } else if (token.isNumeric() && !Double.isFinite(parser.getDoubleValue())) {
                    return false;
                } else if (token == JsonToken.VALUE_STRING || token == JsonToken.FIELD_NAME) {
                    // Half of a surrogate pair parses, and fails once the text leaves the program.
                    StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(parser.getText()));
                }
                values += depth == 0 ? 1 : 0;
            }
            return values == 1;
        } catch (IOException refused) {
            return false;
        }
    }
}
